"""Parses every file of a directory with python-hcl2 and prints what it found as one JSON object, by name."""

import json
import pathlib
import sys

import hcl2

options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    found[path.name] = hcl2.loads(path.read_text(encoding="utf-8"), serialization_options=options)
json.dump(found, sys.stdout)
