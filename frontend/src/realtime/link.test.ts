import { afterEach, beforeEach, expect, test, vi } from 'vitest';

type Handler = (...of: unknown[]) => void;

const { made, fake } = vi.hoisted(() => {
  const made = { options: {} as Record<string, unknown>, handlers: new Map<string, (...of: never[]) => void>() };
  const io = {
    delay: 1000, max: 5000,
    reconnectionDelay(ms: number) { this.delay = ms; },
    reconnectionDelayMax(ms: number) { this.max = ms; },
  };
  const fake = { io, connected: false, active: false, connect: () => {}, disconnect: () => {}, answer: {} as unknown,
    on(name: string, handler: (...of: never[]) => void) { made.handlers.set(name, handler); },
    timeout() { return { emitWithAck: () => (fake.answer instanceof Error ? Promise.reject(fake.answer) : Promise.resolve(fake.answer)) }; },
  };
  return { made, fake };
});
vi.mock('socket.io-client', () => ({ io: (options: Record<string, unknown>) => { made.options = options; return fake; } }));

const { Link } = await import('./link');
const hear = (name: string, ...of: unknown[]) => (made.handlers.get(name) as Handler)(...of);
const authenticate = () => new Promise((give) => { (made.options['auth'] as (give: Handler) => void)(give); });

beforeEach(() => { vi.useFakeTimers(); fake.connected = false; fake.active = false; });
afterEach(() => { vi.useRealTimers(); });

test('comes back after 1 s, then longer, to 5 s, each by half more or less', () => {
  new Link({ token: () => Promise.resolve('t') }).close();
  expect(made.options).toMatchObject({ reconnectionDelay: 1000, reconnectionDelayMax: 5000, randomizationFactor: 0.5 });
});

test('waits as long as a server asks that drains, and forgets that when it is back', () => {
  const link = new Link({ token: () => Promise.resolve('t') });
  hear('server:draining', { reconnectInMs: 4200 });
  expect(fake.io.delay).toBe(4200);
  hear('disconnect', 'transport close');
  expect(link.phase.get()).toBe('reconnecting');
  hear('session:ready', { rooms: [] });
  expect(fake.io).toMatchObject({ delay: 1000, max: 5000 });
  expect(link.phase.get()).toBe('online');
  link.close();
});

test('a refused token is not shown a second time', async () => {
  const token = vi.fn((refused?: string) => Promise.resolve(refused ? 'new' : 'old'));
  const connect = vi.spyOn(fake, 'connect');
  const link = new Link({ token });
  expect(await authenticate()).toEqual({ token: 'old' });
  hear('connect_error', new Error('unauthorized'));
  await vi.advanceTimersByTimeAsync(1500);
  expect(connect).toHaveBeenCalledTimes(1);
  expect(await authenticate()).toEqual({ token: 'new' });
  expect(token).toHaveBeenLastCalledWith('old');
  link.close();
});

test('without a connection a request fails at once; a silent server counts as none; a refusal keeps its code', async () => {
  const link = new Link({ token: () => Promise.resolve('t') });
  await expect(link.ask('typing:start', { roomId: 1 })).rejects.toMatchObject({ code: 'network' });
  fake.connected = true;
  fake.answer = new Error('timeout');
  await expect(link.ask('typing:start', { roomId: 1 })).rejects.toMatchObject({ code: 'network' });
  fake.answer = { ok: false, error: { code: 'rate_limited', message: 'slow down', retryAfterMs: 70 } };
  await expect(link.ask('typing:start', { roomId: 1 })).rejects.toMatchObject({ code: 'rate_limited', retryAfterMs: 70 });
  fake.answer = { ok: true };
  await expect(link.ask('typing:start', { roomId: 1 })).resolves.toEqual({ ok: true });
  link.close();
});
