/**
 * The connection: one unmodified Socket.IO client, and what people are told about it.
 *
 * Lost connections come back by Socket.IO's own backoff: 1 s, doubled up to 5 s, each ±50 %. A server that
 * drains says when to come back, spread over its clients; that delay takes the place of the first.
 */
import { io, type Socket } from 'socket.io-client';
import { ApiError } from '@/lib/http';
import { Store } from '@/lib/store';
import type { Failure } from '@/protocol';
import type { Ask, Events } from './events';

export type Phase = 'connecting' | 'online' | 'reconnecting' | 'offline';

interface Options {
  /** A token that is good now; `refused` was not. */
  token: (refused?: string) => Promise<string>;
  url?: string;
}

const DELAY_MS = 1000;
const DELAY_MAX_MS = 5000;
const OPEN_TIMEOUT_MS = 10_000;
const ACK_TIMEOUT_MS = 10_000;

const lost = () => new ApiError(0, { code: 'network', message: 'There is no connection to the server.' });

export class Link {
  readonly phase = new Store<Phase>('connecting');
  #socket: Socket;
  #token = '';
  #refused: string | undefined;
  #getToken: Options['token'];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor({ token, url }: Options) {
    this.#getToken = token;
    const options = {
      autoConnect: false,
      // A connection of its own per session, also when accounts are switched.
      forceNew: true,
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      reconnectionDelay: DELAY_MS,
      reconnectionDelayMax: DELAY_MAX_MS,
      randomizationFactor: 0.5,
      // A transport that opens and says nothing is given up.
      timeout: OPEN_TIMEOUT_MS,
      auth: (give: (auth: object) => void) => void this.#authenticate(give),
    };
    this.#socket = url ? io(url, options) : io(options);
    this.#socket.on('connect_error', (error) => this.#onConnectError(error));
    this.#socket.on('disconnect', (reason) => this.#onDisconnect(reason));
    this.on('session:ready', () => {
      this.#refused = undefined;
      this.#socket.io.reconnectionDelay(DELAY_MS);
      this.#socket.io.reconnectionDelayMax(DELAY_MAX_MS);
      this.phase.set('online');
    });
    this.on('server:draining', ({ reconnectInMs }) => {
      this.#socket.io.reconnectionDelay(Math.max(DELAY_MS, reconnectInMs));
      this.#socket.io.reconnectionDelayMax(Math.max(DELAY_MAX_MS, reconnectInMs));
    });
    window.addEventListener('offline', this.#onOffline);
    window.addEventListener('online', this.#onOnline);
  }

  open(): void {
    this.phase.set(navigator.onLine ? 'connecting' : 'offline');
    this.#socket.connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    window.removeEventListener('offline', this.#onOffline);
    window.removeEventListener('online', this.#onOnline);
    this.#socket.disconnect();
  }

  on<E extends keyof Events>(event: E, listener: (payload: Events[E], acknowledge?: () => void) => void): void {
    this.#socket.on(event, listener as never);
  }

  /** Never waits for a connection: what has to wait is kept by those who know how long. */
  ask: Ask = async (event, payload) => {
    if (!this.#socket.connected) throw lost();
    let answer: { ok: true } | { ok: false; error: Failure };
    try {
      answer = await this.#socket.timeout(ACK_TIMEOUT_MS).emitWithAck(event, payload) as typeof answer;
    } catch {
      throw lost();
    }
    if (!answer.ok) throw new ApiError(400, answer.error);
    return answer;
  };

  async #authenticate(give: (auth: object) => void): Promise<void> {
    try {
      this.#token = await this.#getToken(this.#refused);
    } catch {
      // No token now: the refusal brings us back here, or the session has ended.
      this.#token = '';
    }
    if (!this.#closed) give({ token: this.#token });
  }

  #onConnectError(error: Error): void {
    if (this.#closed) return;
    this.phase.set(navigator.onLine ? 'reconnecting' : 'offline');
    if (this.#socket.active) return;
    // Refused by the namespace: the token is not good, and Socket.IO does not try again by itself.
    if (error.message === 'unauthorized') this.#refused = this.#token || undefined;
    this.#reconnectIn(DELAY_MS * (0.5 + Math.random()));
  }

  #onDisconnect(reason: string): void {
    if (this.#closed || reason === 'io client disconnect') return;
    this.phase.set(navigator.onLine ? 'reconnecting' : 'offline');
    if (reason === 'io server disconnect') this.#reconnectIn(DELAY_MS * (0.5 + Math.random()));
  }

  #reconnectIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.#closed) this.#socket.connect();
    }, ms);
  }

  #onOffline = () => {
    this.phase.set('offline');
    // The loss is certain: no need to wait for a heartbeat to miss.
    this.#socket.io.engine?.close();
  };

  #onOnline = () => {
    if (this.phase.get() === 'offline') this.phase.set('reconnecting');
  };
}
