// Registration, login, refresh, logout, and what a token must be.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import jwt from 'jsonwebtoken';
import { api, claims, PASSWORD } from '../support/client.mjs';
import { answered, checkUser, refused } from '../support/expect.mjs';
import { useServer } from '../support/fixture.mjs';
import { JWT_SECRET } from '../support/server.mjs';
import { until } from '../support/wait.mjs';

describe('accounts and sessions', () => {
  const world = useServer();

  let names = 0;
  const account = (fields) => {
    names += 1;
    return { username: `Name-${names}`, email: `name-${names}@example.test`, password: PASSWORD, ...fields };
  };
  const post = (path, body) => world.api.post(`/auth/${path}`, body);

  test('registration answers 201 with the user, both tokens and their lifetime', async () => {
    const wanted = account();
    const body = answered(await post('register', wanted), 201);
    checkUser(body.user, { own: true });
    assert.equal(body.user.username, wanted.username);
    assert.equal(body.user.email, wanted.email);
    assert.equal(body.user.displayName, wanted.username, 'displayName defaults to the username');
    assert.equal(body.user.avatarUrl, null);
    assert.equal(typeof body.refreshToken, 'string');
    const { sub, sid, iat, exp } = jwt.verify(body.accessToken, JWT_SECRET, { algorithms: ['HS256'] });
    assert.equal(sub, String(body.user.id));
    assert.ok(sid);
    assert.equal(exp - iat, body.expiresIn);
  });

  test('a display name is taken as it is given, emoji counted as characters', async () => {
    const displayName = '🦜'.repeat(64);
    assert.equal(answered(await post('register', account({ displayName })), 201).user.displayName, displayName);
  });

  test('a user name or an e-mail is taken without regard to case', async () => {
    const first = account();
    answered(await post('register', first), 201);
    refused(await post('register', account({ username: first.username.toUpperCase() })), 409, 'conflict');
    refused(await post('register', account({ email: first.email.toUpperCase() })), 409, 'conflict');
  });

  test('two registrations of one name at once give one account', async () => {
    const both = account();
    const answers = await Promise.all([post('register', both), post('register', both)]);
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409]);
  });

  const badFields = {
    username: [undefined, null, 7, 'ab', 'a'.repeat(33), 'white space', 'ümlaut', 'semi;colon', ''],
    email: [undefined, null, 7, '', 'plain', '@domain.test', 'name@', 'na me@domain.test', 'a@b@domain.test', 'a@do main.test'],
    password: [undefined, null, 7, 'seven77', 'x'.repeat(73), '€'.repeat(25)],
    displayName: [7, '', 'x'.repeat(65), 'nul\u0000'],
  };
  for (const [field, values] of Object.entries(badFields)) {
    test(`registration refuses a bad ${field} and says why`, async () => {
      for (const value of values) {
        refused(await post('register', account({ [field]: value })), 400, 'validation_failed', [field]);
      }
    });
  }

  test('user names of 3 and 32 characters with each allowed sign are fine', async () => {
    for (const username of ['a.b', 'A_b-C.9'.padEnd(32, 'z')]) {
      answered(await post('register', account({ username })), 201);
    }
  });

  test('a password of 72 bytes is kept whole, never cut', async () => {
    const password = '🔑'.repeat(18);
    const { username } = answered(await post('register', account({ password })), 201).user;
    answered(await post('login', { username, password }));
    refused(await post('login', { username, password: '🔑'.repeat(17) }), 401, 'unauthorized');
    const over = await post('login', { username, password: `${password}x` });
    assert.ok([400, 401].includes(over.status), `status ${over.status}`);
  });

  test('login takes the user name or the e-mail, in any case', async () => {
    const user = await world.person();
    for (const username of [user.username, user.username.toUpperCase(), user.email, user.email.toUpperCase()]) {
      const body = answered(await post('login', { username, password: user.password }));
      assert.equal(body.user.id, user.id);
      checkUser(body.user, { own: true });
      assert.equal(claims(body.accessToken).exp - claims(body.accessToken).iat, body.expiresIn);
    }
  });

  test('a wrong password and an unknown name get the same 401', async () => {
    const user = await world.person();
    const wrong = refused(await post('login', { username: user.username, password: 'not this one' }), 401, 'unauthorized');
    const unknown = refused(await post('login', { username: 'nobody.here', password: 'not this one' }), 401, 'unauthorized');
    assert.deepEqual(wrong, unknown);
  });

  test('login and refresh refuse missing and ill-typed fields', async () => {
    refused(await post('login', { password: PASSWORD }), 400, 'validation_failed', ['username']);
    refused(await post('login', { username: 'someone' }), 400, 'validation_failed', ['password']);
    refused(await post('login', { username: 5, password: PASSWORD }), 400, 'validation_failed', ['username']);
    refused(await post('refresh', {}), 400, 'validation_failed', ['refreshToken']);
    refused(await post('refresh', { refreshToken: 5 }), 400, 'validation_failed', ['refreshToken']);
    refused(await post('refresh', { refreshToken: 'no such token' }), 401, 'unauthorized');
  });

  test('every endpoint but register, login and refresh wants a token', async () => {
    const calls = [
      ['post', '/auth/logout'], ['get', '/users/me'], ['patch', '/users/me', {}], ['get', '/users?search=a'],
      ['get', '/users?ids=1'], ['get', '/rooms'], ['post', '/rooms', {}], ['get', '/rooms/1'],
      ['patch', '/rooms/1', {}], ['post', '/rooms/1/members', {}], ['patch', '/rooms/1/members/1', {}],
      ['del', '/rooms/1/members/1'], ['get', '/rooms/1/messages'], ['get', '/messages/search?q=a'],
    ];
    for (const [method, path, body] of calls) {
      refused(await world.api[method](path, body), 401, 'unauthorized');
    }
  });

  test('a token that is forged, expired, unsigned or of another shape is refused', async () => {
    const user = await world.person();
    const { sub, sid } = claims(user.token);
    const now = Math.floor(Date.now() / 1000);
    const good = { sub, sid, iat: now, exp: now + 600 };
    const sign = (payload, secret = JWT_SECRET, algorithm = 'HS256') => jwt.sign(payload, secret, { algorithm });
    answered(await api(world.url, sign(good)).get('/users/me'));
    const bad = [
      'rubbish',
      `${user.token}x`,
      sign(good, 'x'.repeat(40)),
      sign({ ...good, iat: now - 7200, exp: now - 3600 }),
      sign({ ...good, sub: 'zero' }),
      sign({ ...good, sid: '00000000-0000-7000-8000-000000000000' }),
      sign({ sub, iat: now, exp: now + 600 }),
      sign(good, JWT_SECRET, 'HS512'),
      jwt.sign(good, '', { algorithm: 'none' }),
    ];
    for (const token of bad) refused(await api(world.url, token).get('/users/me'), 401, 'unauthorized');
    refused(await world.api.get('/users/me', undefined, { authorization: `Basic ${user.token}` }), 401, 'unauthorized');
  });

  test('a refresh spends the old token and keeps the session', async () => {
    const user = await world.person();
    const body = answered(await post('refresh', { refreshToken: user.refreshToken }));
    assert.equal(body.user.id, user.id);
    assert.equal(claims(body.accessToken).sid, user.sid);
    assert.notEqual(body.refreshToken, user.refreshToken);
    answered(await api(world.url, body.accessToken).get('/users/me'));
    answered(await post('refresh', { refreshToken: body.refreshToken }));
  });

  async function assertEnded(user, client, mark = 0) {
    const revoked = await client.waitFor('session:revoked', undefined, { since: mark });
    assert.equal(typeof revoked.reason, 'string');
    assert.equal(await client.waitFor('disconnect'), 'io server disconnect');
    refused(await user.api.get('/users/me'), 401, 'unauthorized');
  }

  test('a spent refresh token used again ends the whole session', async () => {
    const user = await world.person();
    const client = await world.connect(user);
    const { refreshToken } = answered(await post('refresh', { refreshToken: user.refreshToken }));
    refused(await post('refresh', { refreshToken: user.refreshToken }), 401, 'unauthorized');
    await assertEnded(user, client);
    refused(await post('refresh', { refreshToken }), 401, 'unauthorized');
  });

  test('of two refreshes with one token at once, at most one succeeds', async () => {
    const user = await world.person();
    const answers = await Promise.all([1, 2].map(() => post('refresh', { refreshToken: user.refreshToken })));
    assert.ok(answers.filter(({ status }) => status === 200).length <= 1);
    answers.filter(({ status }) => status !== 200).forEach((answer) => refused(answer, 401, 'unauthorized'));
  });

  test('logout ends its session, disconnects its sockets, and leaves other sessions alone', async () => {
    const user = await world.person();
    const other = await world.login(user);
    assert.notEqual(other.sid, user.sid);
    const [first, second, bystander] = await world.connectAll([user, user, other]);
    assert.equal((await user.api.post('/auth/logout')).status, 204);
    await assertEnded(user, first);
    await assertEnded(user, second);
    refused(await post('refresh', { refreshToken: user.refreshToken }), 401, 'unauthorized');
    answered(await other.api.get('/users/me'));
    await bystander.ask('presence:query', { userIds: [user.id] });
    assert.deepEqual(bystander.all('session:revoked'), []);
  });
});

describe('the limit on registration and login', () => {
  const world = useServer({ env: { AUTH_RATE_PER_IP: '3' } });

  test('too many logins from one address get 429 with Retry-After, and later ones pass again', async () => {
    const attempt = () => world.api.post('/auth/login', { username: 'nobody', password: 'wrong wrong' });
    const answers = await Promise.all(Array.from({ length: 300 }, attempt));
    const limited = answers.filter(({ status }) => status === 429);
    assert.ok(limited.length > 0, 'none was limited');
    for (const answer of limited) {
      refused(answer, 429, 'rate_limited');
      assert.ok(Number(answer.headers.get('retry-after')) >= 1);
    }
    await until(async () => (await attempt()).status === 401, { ms: 70_000, every: 500 });
  });
});
