// PostgreSQL over TLS, as a managed one asks for: by the sslmode of DATABASE_URL.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Postgres } from '../native/postgres.mjs';
import { STARLING, freePort, run } from '../native/tools.mjs';

let folder;
let postgres;

const log = () => at('postgres.log');
const settings = () => ({ ssl: 'on', ssl_cert_file: at('server.crt'), ssl_key_file: at('server.key') });

const at = (name) => path.join(folder, name);
const openssl = (...args) => execFileSync('openssl', args, { stdio: 'ignore' });
const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

const authority = (name) => openssl('req', '-x509', ...KEY, '-days', '2', '-subj', `/CN=${name}`, '-keyout', at(`${name}.key`), '-out', at(`${name}.crt`));

/** A key and a certificate for localhost, by the authority. */
function certificate(by) {
  writeFileSync(at('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1');
  openssl('req', ...KEY, '-subj', '/CN=localhost', '-keyout', at('server.key'), '-out', at('server.csr'));
  openssl('x509', '-req', '-in', at('server.csr'), '-CA', at(`${by}.crt`), '-CAkey', at(`${by}.key`), '-CAcreateserial', '-days', '2', '-extfile', at('names'), '-out', at('server.crt'));
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'starling-tls-'));
  chmodSync(folder, 0o755);
  const port = await freePort();
  // Made without TLS first: the key has to belong to whoever runs it.
  postgres = await Postgres.create({ folder, port, log: log() });
  authority('ours');
  authority('other');
  certificate('ours');
  chmodSync(at('server.key'), 0o600);
  const { uid, gid } = postgres.owner;
  if (uid !== undefined) chownSync(at('server.key'), uid, gid);
  await postgres.stop();
  postgres = new Postgres({ folder: path.join(folder, 'postgres'), port, log: log(), settings: settings() });
  await postgres.start();
}, { timeout: 120_000 });

after(async () => {
  await postgres?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const migrate = (parameters) => run(STARLING, ['migrate'], {
  env: { DATABASE_URL: `${postgres.url.replace('127.0.0.1', 'localhost')}?${parameters}` },
});

test('an authority that is named is believed, and no other', async () => {
  await migrate(`sslmode=verify-full&sslrootcert=${at('ours.crt')}`);
  await assert.rejects(migrate(`sslmode=verify-full&sslrootcert=${at('other.crt')}`));
  await assert.rejects(migrate('sslmode=verify-full'));
});

test('it is used when it is there, also if the address does not say so; and not where it says no', async () => {
  // Only what comes over TLS is let in.
  const hba = at('hba.conf');
  writeFileSync(hba, 'local all all trust\nhostssl all all 127.0.0.1/32 trust\n');
  await postgres.stop();
  postgres = new Postgres({
    folder: path.join(folder, 'postgres'), port: postgres.port, log: log(),
    settings: { ...settings(), hba_file: hba },
  });
  await postgres.start();
  await migrate('sslmode=require');
  await migrate('application_name=any');
  await assert.rejects(migrate('sslmode=disable'));
});
