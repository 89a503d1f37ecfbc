// The SDK for JavaScript, as an application uses it: `node decrypt.mjs FILE KEY`.
import { readFileSync } from "node:fs";
import { DecryptCommand, KMSClient } from "@aws-sdk/client-kms";

const [file, key] = process.argv.slice(2);
const answer = await new KMSClient().send(
  new DecryptCommand({ CiphertextBlob: readFileSync(file), KeyId: key }));
process.stdout.write(Buffer.from(answer.Plaintext).toString("base64"));
