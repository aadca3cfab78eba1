#!/usr/bin/env python3
"""Holds Kubernetes' objects against the schemas of their kinds: `check_kubernetes.py CRDS FILE...`

It runs in the virtual environment of the PyPI package kubernetes-validate, which brings the schemas of Kubernetes' own
kinds. CRDS is a folder of CustomResourceDefinitions (YAML) with those of the others. A field that the schema does not
have is an error, as it is for `kubectl apply --validate=strict`.
"""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest that the chart is for, and the newest that the package has.
VERSIONS = ["1.27", "1.37"]


def strict(schema):
    """A CRD's schema that refuses the fields it does not name, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(part) for key, part in schema.items()}
    is_closed = "properties" in schema and "additionalProperties" not in schema
    if is_closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def custom_schemas(folder):
    """The schemas of the CRDs in a folder, by API version and kind."""
    schemas = {}
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            spec = (crd or {}).get("spec", {})
            for version in spec.get("versions", []):
                schema = version["schema"]["openAPIV3Schema"]
                # What every object has is not spelt out in a CRD.
                properties = {key: strict(part) for key, part in schema["properties"].items()}
                schema = {**schema, "properties": {**properties, "metadata": {"type": "object"}}}
                schema["additionalProperties"] = False
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return schemas


def faults(thing, schemas):
    """What is wrong with an object, as pairs of a path and a message."""
    custom = schemas.get((thing.get("apiVersion"), thing.get("kind")))
    if custom:
        for error in jsonschema.Draft7Validator(custom).iter_errors(thing):
            yield error.json_path, error.message
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield ".".join(map(str, error.path)), f"{error.message} (Kubernetes {version})"
        except kubernetes_validate.SchemaNotFoundError:
            yield "kind", f"nothing is known of it in Kubernetes {version}"


def main():
    schemas = custom_schemas(sys.argv[1])
    count = failed = 0
    for file in sys.argv[2:]:
        # The C parser, since a dashboard is a long text.
        for thing in yaml.load_all(pathlib.Path(file).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if thing is None:
                continue
            count += 1
            for path, message in faults(thing, schemas):
                failed += 1
                name = thing.get("metadata", {}).get("name")
                print(f"{file}: {thing.get('kind')} {name}: {path}: {message}", file=sys.stderr)
    print(f"{count} objects")
    sys.exit(1 if failed else 0)


main()
