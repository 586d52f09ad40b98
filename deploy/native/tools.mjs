// Where the programs are, and how they run: in sessions of their own, so that Ctrl-C reaches them by way of
// whoever started them and in the right order.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, closeSync, readdirSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export { freePort } from '../../crates/server/e2e/support/port.mjs';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The folder that deploy/support/tools.sh fills. */
export const TOOLS = process.env.STARLING_TOOLS
  ?? path.join(process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'starling/deploy');

export const STARLING = process.env.STARLING_BIN
  ?? path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'debug/starling');

export const AS_ROOT = userInfo().uid === 0;

/** The first of these that is there: names in PATH and in the usual folders, or whole paths. */
export function program(name, ...places) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin', '/sbin'];
  const found = [...folders.map((folder) => path.join(folder, name)), ...places].find((file) => existsSync(file));
  if (!found) throw new Error(`${name} is missing: script/setup --test installs it`);
  return found;
}

export const nginxProgram = () => program('nginx', path.join(TOOLS, 'debian/usr/sbin/nginx'));

/** A program of PostgreSQL's server. */
export function postgresProgram(name) {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  return program(name, ...versions.map((version) => path.join(base, version, 'bin', name)));
}

const running = new Set();
process.on('exit', () => running.forEach(killAll));
// A test runner ends a file that takes too long by SIGTERM; a program that minds signals itself does.
process.once('SIGTERM', () => { if (process.listenerCount('SIGTERM') === 0) process.exit(143); });

/** A process with what it has started: NGINX's workers would outlive it. */
function killAll(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL');
  }
}

/** A process whose output goes to a file, and which does not outlive this one. */
export class Process {
  #child;
  #ended;

  constructor(name, command, args, { env, log, cwd = '/', uid, gid, stopSignal = 'SIGTERM' }) {
    Object.assign(this, { name, command, args, env, log, cwd, uid, gid, stopSignal });
  }

  get pid() {
    return this.#child?.pid;
  }

  get alive() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  start() {
    if (this.alive) throw new Error(`${this.name} runs already`);
    const out = openSync(this.log, 'a');
    const child = spawn(this.command, this.args, {
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...this.env },
      cwd: this.cwd,
      uid: this.uid,
      gid: this.gid,
      detached: true,
      stdio: ['ignore', out, out],
    });
    closeSync(out);
    this.#child = child;
    running.add(child);
    this.#ended = once(child, 'close').then(([code, signal]) => {
      running.delete(child);
      return { code, signal };
    });
  }

  signal(signal) {
    if (this.alive) this.#child.kill(signal);
  }

  /** Ends so: `{code, signal}`. */
  get ended() {
    return this.#ended;
  }

  /** Sends a signal and waits for the end; after `ms` it is killed. */
  async stop(signal = this.stopSignal, ms = 40_000) {
    if (!this.#child) return undefined;
    this.signal(signal);
    const timer = setTimeout(() => { if (this.alive) killAll(this.#child); }, ms);
    const exit = await this.#ended;
    clearTimeout(timer);
    return exit;
  }
}

/** Runs a program to its end and answers its output; an exit code other than 0 is an error. */
export async function run(command, args, { env = {}, cwd = '/', uid, gid, ms = 120_000, input } = {}) {
  const child = spawn(command, args.map(String), {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env }, cwd, uid, gid, stdio: ['pipe', 'pipe', 'pipe'], detached: true,
  });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => { stdout += chunk; });
  child.stderr.on('data', (chunk) => { stderr += chunk; });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const timer = setTimeout(() => killAll(child), ms);
  const [code, signal] = await once(child, 'close');
  clearTimeout(timer);
  running.delete(child);
  if (code !== 0) {
    const text = `${path.basename(command)} ${args.slice(0, 3).join(' ')}: ${signal ?? `exit code ${code}`}\n${stderr}${stdout}`;
    throw Object.assign(new Error(text.slice(0, 8_000)), { code, stdout, stderr });
  }
  return { stdout, stderr };
}
