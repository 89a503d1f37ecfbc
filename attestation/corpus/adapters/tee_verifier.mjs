// @0xsequence/tee-verifier (npm): adapter DOCUMENT ROOT TIME_MS [N=HEX]…
//
// What createAttestationVerifyingFetch does with a document, without the request: its
// nonces are its own texts, so no other can be expected.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

globalThis.window = globalThis;
const { SignedAttestation } = await import('@0xsequence/tee-verifier');

const [file, root, time, ...pcrs] = process.argv.slice(2);
const der = Buffer.from(readFileSync(root, 'utf8').replace(/-----[^-]+-----/g, ''), 'base64');
const fingerprint = createHash('sha256').update(der).digest('hex');

async function verify() {
  const attestation = SignedAttestation.fromDocument(readFileSync(file).toString('base64'));
  for (const [index, expected] of pcrs.map((pcr) => pcr.split('='))) {
    if (attestation.pcrs.get(Number(index)) !== expected) throw new Error(`Invalid PCR${index}`);
  }
  if (!(await attestation.verifyRootOfTrust(new Date(Number(time))))) {
    throw new Error('Invalid root of trust');
  }
  if ((await attestation.rootCertFingerprint()) !== fingerprint) {
    throw new Error('Invalid root certificate fingerprint');
  }
  if (!(await attestation.verifySignature())) throw new Error('Invalid signature');
}

verify().then(
  () => process.exit(0),
  (error) => {
    console.log(String(error));
    process.exit(1);
  },
);
