// The suite's proxy does to connections what it says.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { until } from '../deps.mjs';
import { startProxy } from '../proxy.mjs';
import { frameCutter, isBroadcast } from '../resp.mjs';

const bulk = (text) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
const published = (text) => `*3\r\n${bulk('message')}${bulk('socket.io#/#')}${bulk(`message:new ${text}`)}`;

describe('frames of Redis', () => {
  test('are whole, however the bytes come', () => {
    const stream = Buffer.from(`+OK\r\n:5\r\n$-1\r\n*-1\r\n${bulk('a\r\nb')}%1\r\n+k\r\n*2\r\n:1\r\n_\r\n>3\r\n${bulk('pmessage')}+c\r\n${bulk('x')}|1\r\n+ttl\r\n:9\r\n+after\r\n,1.5\r\n`);
    const whole = frameCutter()(stream).map(String);
    assert.equal(whole.length, 9);
    const cut = frameCutter();
    assert.deepEqual([...stream].flatMap((byte) => cut(Buffer.of(byte))).map(String), whole);
  });

  test('which are broadcasts', () => {
    assert.ok(isBroadcast(Buffer.from(published('x'))));
    assert.ok(isBroadcast(Buffer.from(`>3\r\n${bulk('message')}${bulk('c')}${bulk('message:new')}`)));
    assert.ok(!isBroadcast(Buffer.from(bulk('message:new'))));
    assert.ok(!isBroadcast(Buffer.from(`*3\r\n${bulk('message')}${bulk('c')}${bulk('typing:update')}`)));
  });
});

describe('the proxy', () => {
  let backend;
  let proxy;
  const open = new Set();
  before(async () => {
    // Says what it hears.
    backend = net.createServer((socket) => { open.add(socket); socket.on('error', () => {}).pipe(socket); }).listen(0, '127.0.0.1');
    await once(backend, 'listening');
    proxy = await startProxy(backend.address().port, { follows: true });
  });
  after(async () => {
    await proxy.close();
    open.forEach((socket) => socket.destroy());
    backend.close();
  });

  function connect() {
    const socket = net.connect(proxy.port, '127.0.0.1');
    const client = { socket, heard: '', ended: false };
    socket.on('data', (chunk) => { client.heard += chunk; });
    socket.on('error', (error) => { client.error = error.code; });
    socket.on('close', () => { client.ended = true; });
    return client;
  }
  const hears = (client, text) => until(() => client.heard === text, { what: `${JSON.stringify(text)}, not ${JSON.stringify(client.heard)}` });

  test('passes, and resets what is open and what is new', async () => {
    proxy.pass();
    const client = connect();
    client.socket.write('+one\r\n');
    await hears(client, '+one\r\n');
    proxy.cut();
    await until(() => client.ended);
    assert.equal(client.error, 'ECONNRESET');
    const late = connect();
    await until(() => late.ended);
    proxy.pass();
  });

  test('stalls old and new connections, and loses nothing', async () => {
    const old = connect();
    old.socket.write('+one\r\n');
    await hears(old, '+one\r\n');
    proxy.stall();
    const young = connect();
    for (const client of [old, young]) client.socket.write('+two\r\n');
    // Another connection to the same backend shows that time went by.
    const direct = net.connect(backend.address().port, '127.0.0.1');
    direct.write('x');
    await once(direct, 'data');
    direct.destroy();
    assert.deepEqual([old.heard, young.heard, old.ended, young.ended], ['+one\r\n', '', false, false]);
    proxy.pass();
    await hears(old, '+one\r\n+two\r\n');
    await hears(young, '+two\r\n');
  });

  test('delays in order', async () => {
    const client = connect();
    proxy.delay(60);
    const since = performance.now();
    client.socket.write('+one\r\n');
    client.socket.write('+two\r\n');
    await hears(client, '+one\r\n+two\r\n');
    assert.ok(performance.now() - since >= 110, 'each way once');
    proxy.pass();
  });

  test('loses, repeats and swaps broadcasts, and nothing else', async () => {
    const client = connect();
    const fates = ['lose', 'repeat', 'hold', undefined];
    proxy.scramble(() => fates.shift());
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(published);
    client.socket.write(`+first\r\n${a}${b}${c}${d}+last\r\n`);
    await hears(client, `+first\r\n${b}${b}${d}${c}+last\r\n`);
    proxy.pass();
  });
});
