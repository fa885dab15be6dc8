"""The static download site: find my token, what will be changed, checksums. Made from brand data and package files.

`build.build_pages` turns a `model.Site` into files; `folder.write_folder` puts them in place at once. Words live in
`texts/<language>.toml`, never in code; pictures are drawings of shapes, not of products.
"""
