"""CMS EnvelopedData with asn1crypto and cryptography.

usage: cms.py open KEY < messages > plaintexts
       cms.py seal KEY < plaintexts > messages

KEY is a file, an RSA key in PKCS #8. Input and output are lines in hexadecimal. `open`
demands the form that KMS writes; `seal` writes one message for each form that a writer of
CMS may choose.
"""

import hashlib
import os
import sys

from asn1crypto import algos, cms, core, x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK_BITS = 128
OAEP = rsa_padding.OAEP(
    mgf=rsa_padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None
)


def public_key(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def expect(what, value, expected):
    if value != expected:
        sys.exit(f"{what} is {value!r}, not {expected!r}")


def opened(key, message):
    info = cms.ContentInfo.load(message, strict=True)
    expect("contentType", info["content_type"].native, "enveloped_data")
    enveloped = info["content"]
    expect("version", enveloped["version"].native, "v2")
    expect("recipients", len(enveloped["recipient_infos"]), 1)
    recipient = enveloped["recipient_infos"][0]
    expect("the recipient", recipient.name, "ktri")
    recipient = recipient.chosen
    expect("the recipient's version", recipient["version"].native, "v2")
    identifier = hashlib.sha256(public_key(key)).digest()
    expect("rid", recipient["rid"].name, "subject_key_identifier")
    expect("the key's identifier", recipient["rid"].native, identifier)
    algorithm = recipient["key_encryption_algorithm"]
    expect("keyEncryptionAlgorithm", algorithm["algorithm"].native, "rsaes_oaep")
    parameters = algorithm["parameters"]
    expect("the hash", parameters["hash_algorithm"]["algorithm"].native, "sha256")
    mask = parameters["mask_gen_algorithm"]
    expect("the mask", mask["algorithm"].native, "mgf1")
    expect("the mask's hash", mask["parameters"]["algorithm"].native, "sha256")
    content = enveloped["encrypted_content_info"]
    expect("the content's type", content["content_type"].native, "data")
    algorithm = content["content_encryption_algorithm"]
    expect("the content's algorithm", algorithm["algorithm"].native, "aes256_cbc")

    content_key = key.decrypt(recipient["encrypted_key"].native, OAEP)
    vector = algorithm["parameters"].native
    cipher = Cipher(algorithms.AES256(content_key), modes.CBC(vector)).decryptor()
    padded = cipher.update(content["encrypted_content"].native) + cipher.finalize()
    unpadder = padding.PKCS7(BLOCK_BITS).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def sha256(parameters):
    return algos.DigestAlgorithm({"algorithm": "sha256", "parameters": parameters})


def sealed(key, plaintext, by_key, parameters):
    content_key, vector = os.urandom(32), os.urandom(16)
    padder = padding.PKCS7(BLOCK_BITS).padder()
    padded = padder.update(plaintext) + padder.finalize()
    cipher = Cipher(algorithms.AES256(content_key), modes.CBC(vector)).encryptor()
    content = cipher.update(padded) + cipher.finalize()
    version = "v2" if by_key else "v0"
    if by_key:
        identifier = hashlib.sha256(public_key(key)).digest()
        rid = cms.RecipientIdentifier("subject_key_identifier", identifier)
    else:
        issuer = x509.Name.build({"common_name": "nobody"})
        rid = cms.RecipientIdentifier(
            "issuer_and_serial_number",
            cms.IssuerAndSerialNumber({"issuer": issuer, "serial_number": 1}),
        )
    recipient = cms.KeyTransRecipientInfo(
        {
            "version": version,
            "rid": rid,
            "key_encryption_algorithm": {
                "algorithm": "rsaes_oaep",
                "parameters": algos.RSAESOAEPParams(
                    {
                        "hash_algorithm": sha256(parameters),
                        "mask_gen_algorithm": {
                            "algorithm": "mgf1",
                            "parameters": sha256(parameters),
                        },
                    }
                ),
            },
            "encrypted_key": key.public_key().encrypt(content_key, OAEP),
        }
    )
    enveloped = cms.EnvelopedData(
        {
            "version": version,
            "recipient_infos": [cms.RecipientInfo("ktri", recipient)],
            "encrypted_content_info": {
                "content_type": "data",
                "content_encryption_algorithm": {
                    "algorithm": "aes256_cbc",
                    "parameters": vector,
                },
                "encrypted_content": content,
            },
        }
    )
    info = cms.ContentInfo({"content_type": "enveloped_data", "content": enveloped})
    return info.dump()


def main():
    command, path = sys.argv[1:]
    with open(path, "rb") as file:
        key = serialization.load_der_private_key(file.read(), password=None)
    for line in sys.stdin:
        message = bytes.fromhex(line)
        if command == "open":
            print(opened(key, message).hex())
            continue
        for by_key in (True, False):
            for parameters in (core.Null(), None):
                print(sealed(key, message, by_key, parameters).hex())


main()
