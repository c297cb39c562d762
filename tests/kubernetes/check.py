"""Checks the resources on standard input against the schemas of the Kubernetes versions that are named, unknown fields
included, and prints them as JSON. Those of the Prometheus Operator are not Kubernetes' own and have no schema here."""

import json
import sys

import kubernetes_validate
import yaml

resources = [resource for resource in yaml.safe_load_all(sys.stdin) if resource]
wrong = False
for resource in resources:
    if resource.get("apiVersion", "").startswith("monitoring.coreos.com/"):
        continue
    for version in sys.argv[1:]:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            name = resource.get("metadata", {}).get("name")
            place = ".".join(map(str, error.path))
            print(f"{resource.get('kind')} {name}, {place}, Kubernetes {version}: {error.message}", file=sys.stderr)
            wrong = True
json.dump(resources, sys.stdout)
sys.exit(wrong)
