"""The least that a Python program can do to ask whether anything is new: for bench/poll.py to compare with.

    python bench/bare_poll.py HOST PORT PATH ETAG
"""

import http.client
import sys

host, port, path, etag = sys.argv[1:]
connection = http.client.HTTPConnection(host, int(port), timeout=10)
connection.request("GET", path, headers={"Accept-Encoding": "gzip", "If-None-Match": etag, "Connection": "close"})
answer = connection.getresponse()
answer.read()
print("nothing new" if answer.status == 304 else f"status {answer.status}")
