"""The index that the pages' script reads: USB ids and brands, and nothing else. It is small and static."""

import json
from collections.abc import Mapping, Sequence

from keyfit.model.catalog import Brand
from keyfit.publisher.site.model import Claim, DeviceKey, brands_of, id_slug


def id_index(ids: Mapping[DeviceKey, Sequence[Claim]], brands: Sequence[Brand]) -> bytes:
    """`ids`: "096e-0807" or "096e" -> brands; `classes`: "0b" -> class drivers, for devices that no id names."""
    classes: dict[str, list[str]] = {}
    for brand in (brand for brand in brands if brand.class_driver):
        for match in (m for model in brand.model for m in model.match):
            if match.id_vendor is None and match.b_interface_class is not None:
                classes.setdefault(f"{match.b_interface_class:02x}", []).append(brand.brand)
    named = {id_slug(key): [brand.brand for brand in brands_of(row)] for key, row in ids.items()}
    return json.dumps({"ids": named, "classes": {key: sorted(set(names)) for key, names in sorted(classes.items())}},
                      separators=(",", ":")).encode() + b"\n"
