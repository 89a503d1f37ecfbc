"""epsilon-attestation-verifier (PyPI): adapter.py DOCUMENT ROOT [--pcrN HEX]

Its clock is the system's.
"""

import argparse
import base64
import logging
import pathlib
import sys

from epsilon_verifier import verify_attestation

parser = argparse.ArgumentParser()
parser.add_argument("document", type=pathlib.Path)
parser.add_argument("root")
for index in range(3):
    parser.add_argument(f"--pcr{index}")
options = parser.parse_args()
logging.disable(logging.CRITICAL)
result = verify_attestation(
    attestation_doc=base64.b64encode(options.document.read_bytes()).decode(),
    expected_pcr0=options.pcr0,
    expected_pcr1=options.pcr1,
    expected_pcr2=options.pcr2,
    aws_root_cert_path=options.root,
)
if not result.valid:
    print(result.error)
sys.exit(0 if result.valid else 1)
