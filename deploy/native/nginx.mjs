// NGINX on loopback ports, from the template of deploy/nginx.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { until } from '../../crates/server/e2e/support/wait.mjs';
import { localServers, render, tls } from '../nginx/render.mjs';
import { AS_ROOT, Process, nginxProgram } from './tools.mjs';

export class Nginx {
  /** `servers` are the ports of the instances; `values` are laid over what is set here. */
  constructor({ folder, port, tlsPort, servers, log, accessLog, values = {}, program = nginxProgram() }) {
    Object.assign(this, { folder, port, tlsPort, servers, accessLog, values });
    mkdirSync(folder, { recursive: true });
    this.url = `http://127.0.0.1:${port}`;
    this.tlsUrl = tlsPort ? `https://127.0.0.1:${tlsPort}` : undefined;
    this.config = path.join(folder, 'nginx.conf');
    this.certificate = path.join(folder, 'tls.crt');
    // Workers of a root's NGINX would be `nobody`, who may not enter this folder.
    const user = AS_ROOT ? ' user root;' : '';
    this.process = new Process('nginx', program, [
      '-c', this.config, '-p', folder, '-e', 'stderr', '-g', `daemon off;${user}`,
    ], { log, stopSignal: 'SIGTERM' });
  }

  #write() {
    const listen = [`listen 127.0.0.1:${this.port};`];
    if (this.tlsPort) listen.push(`listen 127.0.0.1:${this.tlsPort} ssl;`);
    writeFileSync(this.config, render({
      STARLING_NGINX_DIR: this.folder,
      STARLING_NGINX_ACCESS_LOG: this.accessLog,
      STARLING_NGINX_WORKERS: '2',
      STARLING_NGINX_FILES: '16384',
      STARLING_NGINX_CONNECTIONS: '8192',
      STARLING_LISTEN: listen.join(' '),
      STARLING_TLS: this.tlsPort ? tls(this.certificate, path.join(this.folder, 'tls.key')) : '',
      STARLING_SERVERS: localServers(this.servers),
      ...this.values,
    }));
  }

  async start() {
    if (this.tlsPort) {
      execFileSync('openssl', [
        'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
        '-keyout', path.join(this.folder, 'tls.key'), '-out', this.certificate,
      ], { stdio: 'ignore' });
    }
    this.#write();
    this.process.start();
    await this.#listens();
  }

  #listens() {
    return until(async () => {
      if (!this.process.alive) throw Object.assign(new Error(`NGINX ended at once: ${this.process.log}`), { final: true });
      return (await fetch(`${this.url}/healthz`, { signal: AbortSignal.timeout(1_000) })).ok;
    }, { ms: 10_000, what: 'NGINX to listen' });
  }

  /** New workers with what is configured now; the old ones keep their connections until these end. */
  async reload(servers = this.servers) {
    this.servers = servers;
    this.#write();
    const old = this.#workers();
    this.process.signal('SIGHUP');
    await until(() => {
      const workers = this.#workers();
      return workers.length > 0 && old.every((pid) => !workers.includes(pid));
    }, { ms: 10_000, what: 'NGINX to change its workers' });
    await this.#listens();
  }

  /** Processes that take new connections. */
  #workers() {
    const { pid } = this.process;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
    return children.filter((child) => {
      try {
        const title = readFileSync(`/proc/${child}/cmdline`, 'utf8');
        return title.includes('worker process') && !title.includes('shutting down');
      } catch {
        return false;
      }
    });
  }

  stop() {
    return this.process.stop();
  }
}
