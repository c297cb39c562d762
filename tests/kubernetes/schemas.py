"""Writes the schemas of a Kubernetes version that refuse unknown fields as kubeconform reads them, and prints their directory."""

import json
import pathlib
import shutil
import sys
import tempfile

import kubernetes_validate

version = sys.argv[1]
source = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
here = pathlib.Path(__file__).parent
target = here / f"schemas-{version}"
if not target.exists():
    # Several tests may do this at once; the first one wins.
    scratch = pathlib.Path(tempfile.mkdtemp(dir=here))
    for file in source.glob("*.json"):
        schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        # Otherwise references would be resolved against that address.
        schema.pop("$id", None)
        (scratch / file.name).write_text(json.dumps(schema))
    try:
        scratch.rename(target)
    except OSError:
        shutil.rmtree(scratch)
print(target)
