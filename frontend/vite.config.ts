import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import tailwindcss from '@tailwindcss/vite';
import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The emoji names of both languages as files of our own, so that the picker asks nobody else. */
function emojiData(): Plugin {
  const files = ['en', 'de'].flatMap((language) => ['data', 'messages'].map((kind) => `${language}/${kind}.json`));
  const path = (file: string) => here(`node_modules/emojibase-data/${file}`);
  return {
    name: 'emoji-data',
    async generateBundle() {
      for (const file of files) this.emitFile({ type: 'asset', fileName: `emoji/${file}`, source: await readFile(path(file)) });
    },
    configureServer(server) {
      server.middlewares.use('/emoji', (request, response, next) => {
        const file = files.find((one) => request.url === `/${one}`);
        if (!file) return next();
        readFile(path(file)).then((data) => {
          response.setHeader('content-type', 'application/json');
          response.end(data);
        }, next);
      });
    },
  };
}

/** `.br` and `.gz` twins, which the server sends to those who take them. */
function compressed(): Plugin {
  return {
    name: 'compressed',
    apply: 'build',
    async writeBundle(options, bundle) {
      const folder = options.dir ?? here('dist');
      for (const name of [...Object.keys(bundle), 'theme.js', 'icon.svg']) {
        if (!/\.(js|css|html|json|svg|webmanifest)$/.test(name)) continue;
        const data = await readFile(join(folder, name)).catch(() => null);
        if (!data || data.length < 800) continue;
        await writeFile(join(folder, `${name}.gz`), gzipSync(data, { level: 9 }));
        await writeFile(join(folder, `${name}.br`), brotliCompressSync(data, {
          params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: data.length },
        }));
      }
    },
  };
}

const server = process.env.STARLING_URL ?? 'http://127.0.0.1:3000';

export default defineConfig({
  plugins: [react(), tailwindcss(), emojiData(), compressed()],
  resolve: {
    alias: {
      '@': here('src'),
      // The original writes a <style> element, which the Content-Security-Policy forbids.
      'react-style-singleton': here('src/lib/style-singleton.ts'),
    },
  },
  build: { target: 'es2023', assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  server: {
    port: 5173,
    proxy: { '/api': server, '/socket.io': { target: server, ws: true } },
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}'],
    setupFiles: ['src/testing/setup.ts'],
    reporters: ['./scripts/count-reporter.ts'],
    restoreMocks: true,
  },
});
