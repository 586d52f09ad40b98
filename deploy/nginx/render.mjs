// Fills in nginx.conf.template: for a cluster on one machine, and for tests. In the image envsubst does the same
// with the same variables.
//
//   node deploy/nginx/render.mjs [NAME=value …] > nginx.conf

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const TEMPLATE = fileURLToPath(new URL('nginx.conf.template', import.meta.url));

/** What holds when a variable is not given; the image sets the same ones (a test compares). */
export const DEFAULTS = {
  STARLING_NGINX_WORKERS: 'auto',
  STARLING_NGINX_FILES: '65536',
  STARLING_NGINX_CONNECTIONS: '32768',
  STARLING_NGINX_DIR: '/tmp/nginx',
  STARLING_NGINX_ACCESS_LOG: '/dev/stdout',
  STARLING_RESOLVER: '',
  STARLING_REAL_IP: '',
  STARLING_STICKY: 'hash $starling_key consistent',
  STARLING_SERVERS: 'server 127.0.0.1:3000;',
  STARLING_LISTEN: 'listen 8080;',
  STARLING_TLS: '',
  STARLING_HTTPS_ONLY: 'off',
  STARLING_HSTS: '',
  STARLING_HANDSHAKES_PER_IP: '40',
  STARLING_HANDSHAKE_BURST: '200',
  STARLING_REQUESTS_PER_IP: '100',
  STARLING_REQUEST_BURST: '400',
  STARLING_CONNECTIONS_PER_IP: '5000',
};

/** The configuration, with `values` laid over the defaults. */
export function render(values = {}) {
  const unknown = Object.keys(values).filter((name) => !(name in DEFAULTS));
  if (unknown.length > 0) throw new Error(`nginx.conf.template has no ${unknown.join(', ')}`);
  const all = { ...DEFAULTS, ...values };
  return readFileSync(TEMPLATE, 'utf8').replace(/\$\{(STARLING_[A-Z_]+)\}/g, (_, name) => {
    if (!(name in all)) throw new Error(`${name} has no value`);
    return all[name];
  });
}

/** A line for each instance of `ports` on this machine. */
export function localServers(ports) {
  return ports.map((port) => `server 127.0.0.1:${port} max_fails=3 fail_timeout=2s;`).join('\n        ');
}

/** TLS as of today: what browsers of the last ten years speak. */
export function tls(certificate, key) {
  return [
    `ssl_certificate ${certificate};`,
    `ssl_certificate_key ${key};`,
    'ssl_protocols TLSv1.2 TLSv1.3;',
    'ssl_session_cache shared:tls:10m;',
    'ssl_session_timeout 1d;',
    'ssl_session_tickets off;',
  ].join('\n        ');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const values = process.argv.slice(2).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]);
  process.stdout.write(render(Object.fromEntries(values)));
}
