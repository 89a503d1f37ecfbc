// What a workload asks of its enclave. The manifest has an open register, a peer `sibling`,
// a secret `token` with `api = true`, and `health = { notify = true }`.
//
// usage: node example.mjs [REGISTER]
import { createHash } from 'node:crypto';
import { EnclaveApi, EnclaveApiError } from './index.js';

const register = Number(process.argv[2] ?? 17);
const api = new EnclaveApi();

/** The error that the API refuses with; other errors are not expected. */
async function refusalOf(answer) {
  try {
    await answer;
  } catch (error) {
    if (error instanceof EnclaveApiError) {
      return error;
    }
    throw error;
  }
  return undefined;
}

const own = await api.readMeasurements();
console.log(`measurements: ${own.name}, self-check ${own.selfCheck}`);
console.log(`runtime configuration: ${(await api.readRuntimeConfiguration()).length} bytes`);

// A document for whoever has sent a nonce. Here the enclave is its own peer.
const nonce = await api.random(32);
const document = await api.attest({ nonce, publicKey: Buffer.from("a key of the workload's") });
const verdict = await api.verify({ document, peer: 'sibling', nonce });
if (verdict.accepted) {
  console.log(`document: accepted, with the key b"${verdict.publicKey}"`);
} else {
  console.log(`document: refused: ${verdict.rule}: ${verdict.reason}`);
}

// A key that never leaves the init, and its signature.
const key = await api.makeIdentity();
const signature = await api.sign({ message: Buffer.from('answer: 42') });
console.log(`signature: ${signature.algorithm}, by a key of ${key.publicKey.length} bytes`);

const asked = api.readSecret('token', { wait: 5 });
const missing = await refusalOf(asked);
console.log(`secret: ${missing ? missing.code : `${(await asked).length} bytes`}`);

// What is loaded at run time, measured.
const digest = createHash('sha384').update('model').digest();
const measured = await api.extendRegister(register, { data: digest });
console.log(`register: ${measured.value}`);
await api.lockRegister(register);
const refused = await refusalOf(api.extendRegister(register, { data: Buffer.from('more') }));
console.log(`extended again: status ${refused.status}, ${refused.code}`);

await api.notify({ state: 'ready', status: 'serving' });
console.log(`restarts: ${(await api.readReadiness()).restarts}`);
