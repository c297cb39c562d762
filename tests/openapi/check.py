"""Checks an OpenAPI document against a gateway.

    check.py DOCUMENT                validates the document
    check.py DOCUMENT URL [OPTION…]  also has schemathesis, with these options of its `run`, send the gateway requests that are right
                                     and wrong, and compare each answer with the document: status, content type and body

Exit code 1 if anything differs."""
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_spec_validator.readers import read_from_filename

HERE = Path(__file__).resolve().parent


def main(document, url=None, *options):
    content, _ = read_from_filename(document)
    validate(content, cls=OpenAPIV31SpecValidator)
    print(f"{document} is valid")
    if url is None:
        return 0
    schemathesis = Path(sys.executable).with_name("schemathesis")
    command = [schemathesis, "--config-file", HERE / "schemathesis.toml", "run", Path(document).resolve(), "--url", url, *options]
    # It leaves notes where it runs.
    with TemporaryDirectory() as notes:
        return subprocess.run(command, cwd=notes, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
