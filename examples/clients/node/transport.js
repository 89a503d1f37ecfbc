// How requests of the client are sent: HTTP/1.1 over TCP or a Unix socket. Not by `fetch`,
// whose requests have headers of browsers, which the API refuses.
import { request } from 'node:http';

/** Where the API is without a network. */
export const SOCKET = '/run/enclave/api.sock';
/** The largest answer that is read, in bytes. */
const MAX_ANSWER = 1024 * 1024;

/** The API has refused a request. */
export class EnclaveApiError extends Error {
  constructor(status, code, reason, advice) {
    super(code ? `${reason} (${code})` : reason);
    this.name = 'EnclaveApiError';
    this.status = status;
    this.code = code;
    this.advice = advice;
  }
}

/** Sends each request over a connection of its own, as the API wants it. */
export class Transport {
  #place;
  #timeout;

  constructor({ address = process.env.ENCLAVE_API || `unix:${SOCKET}`, timeout = 20_000 } = {}) {
    this.#timeout = timeout;
    if (address.startsWith('unix:')) {
      this.#place = { socketPath: address.slice('unix:'.length) };
      return;
    }
    const { protocol, hostname, port } = new URL(address);
    if (protocol !== 'http:') {
      throw new TypeError(`${address} is neither http://HOST:PORT nor unix:PATH`);
    }
    this.#place = { hostname, port };
  }

  /** The body of the answer. */
  send(method, path, { query = {}, body } = {}) {
    const asked = new URLSearchParams(
      Object.entries(query).filter(([, value]) => value !== undefined),
    ).toString();
    const headers = { 'Enclave-Api': '1' };
    let content;
    if (body !== undefined) {
      content = Buffer.from(JSON.stringify(encoded(body)));
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = content.length;
    }
    return new Promise((resolve, reject) => {
      const sent = request({
        ...this.#place,
        agent: false,
        method,
        path: asked ? `${path}?${asked}` : path,
        headers,
        signal: AbortSignal.timeout(this.#timeout),
      });
      sent.on('error', reject);
      sent.on('response', (answer) => {
        const parts = [];
        let length = 0;
        answer.on('error', reject);
        answer.on('data', (part) => {
          length += part.length;
          if (length > MAX_ANSWER) {
            answer.destroy(new Error(`the answer has more than ${MAX_ANSWER} bytes`));
          }
          parts.push(part);
        });
        answer.on('end', () => {
          const received = Buffer.concat(parts);
          if (answer.statusCode >= 200 && answer.statusCode < 300) {
            resolve(received);
          } else {
            reject(refusal(answer.statusCode, received));
          }
        });
      });
      sent.end(content);
    });
  }

  /** The answer as JSON. */
  async json(method, path, sent) {
    return JSON.parse((await this.send(method, path, sent)).toString());
  }
}

/** Bytes that may be missing. */
export function bytesOf(text) {
  return typeof text === 'string' ? Buffer.from(text, 'base64') : text;
}

function encoded(body) {
  const fields = Object.entries(body).map(([name, value]) => [
    name,
    value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value,
  ]);
  return Object.fromEntries(fields);
}

function refusal(status, received) {
  try {
    const { code, error, advice } = JSON.parse(received.toString());
    if ([code, error, advice].every((text) => typeof text === 'string')) {
      return new EnclaveApiError(status, code, error, advice);
    }
  } catch {
    // Whoever answered was not the API.
  }
  return new EnclaveApiError(status, '', `the answer has status ${status} and no reason`, '');
}
