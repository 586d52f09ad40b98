// Makes the picture of the README: two people, two themes, one conversation.

import { readFile, stat, unlink, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import assert from 'node:assert/strict';
import { scene } from './scene.mjs';
import { artefact, message, phase, PHONE, useBrowser, useServer } from './support.mjs';

const TARGET = fileURLToPath(new URL('../screenshot.webp', import.meta.url));
const LARGEST = 300_000;

const world = useServer();
const browsers = useBrowser();

test('the picture of the README', async () => {
  const { alice, carol, team, clients } = await scene(world);
  const path = `/rooms/${team.id}`;
  const [desk, phone] = [
    await browsers.openAs(world, alice, { path, viewport: { width: 1070, height: 760 }, deviceScaleFactor: 2 }),
    await browsers.openAs(world, carol, { path, viewport: PHONE, theme: 'dark', deviceScaleFactor: 2 }),
  ];
  for (const page of [desk, phone]) {
    await phase(page, 'online');
    await message(page, '🍰').waitFor();
    await page.getByRole('separator').waitFor();
    // The picture shows the end of the conversation, with nothing unread in it.
    await page.getByRole('log').evaluate((box) => { box.scrollTop = box.scrollHeight; });
    await page.getByRole('button', { name: /Jump to latest/ }).waitFor({ state: 'detached' });
  }
  clients.get(carol).socket.emit('typing:start', { roomId: team.id });
  await desk.getByText('Carol is typing…').waitFor();
  const shots = await Promise.all([desk.screenshot(), phone.screenshot()]);
  clients.forEach((client) => client.close());

  const context = await browsers.context({ viewport: { width: 1500, height: 860 } });
  const page = await context.newPage();
  const [left, right] = shots.map((shot) => `data:image/png;base64,${shot.toString('base64')}`);
  await page.setContent(`<style>
    body { margin: 0; height: 860px; background: linear-gradient(120deg, #2b2560, #4b3fa3 40%, #2f6f8a 75%, #2a8a78); position: relative; }
    img { position: absolute; border-radius: 14px; box-shadow: 0 24px 60px rgb(0 0 0 / .45); }
    .desk { inset: 50px auto auto 40px; width: 1070px; }
    .phone { inset: auto 36px 44px auto; width: 326px; border-radius: 30px; border: 7px solid #0b0a10; }
  </style><img class="desk" src="${left}"><img class="phone" src="${right}">`);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  const file = artefact('screenshot.png');
  await page.screenshot({ path: file });
  // As WebP, by the browser itself.
  const png = (await readFile(file)).toString('base64');
  const webp = await page.evaluate(async (data) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d').drawImage(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: 'image/webp', quality: 0.9 });
    return [...new Uint8Array(await blob.arrayBuffer())];
  }, png);
  await writeFile(TARGET, Buffer.from(webp));
  await unlink(file);
  const { size } = await stat(TARGET);
  console.log(`${TARGET}: ${size} bytes`);
  assert.ok(size <= LARGEST, `${size} bytes are more than ${LARGEST}`);
});
