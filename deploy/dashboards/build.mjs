// Makes the Grafana dashboards in grafana/: `node deploy/dashboards/build.mjs`. A test keeps them fresh.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const PER_INSTANCE = '{{instance}}';
const RATE = '$__rate_interval';

const target = ([expr, legendFormat = PER_INSTANCE], i) => ({
  refId: String.fromCharCode(65 + i), datasource: DATASOURCE, expr, legendFormat,
});

/** A curve over time. `queries` are `[expression, legend]`. */
const graph = (title, description, unit, queries, more = {}) => ({
  type: 'timeseries', title, description, width: 12, height: 8,
  fieldConfig: {
    defaults: {
      unit, min: 0, custom: { lineWidth: 1, fillOpacity: more.stack ? 30 : 5, showPoints: 'never', stacking: { mode: more.stack ? 'normal' : 'none' } },
    },
    overrides: [],
  },
  options: { tooltip: { mode: 'multi', sort: 'desc' }, legend: { displayMode: 'list', placement: 'bottom' } },
  targets: queries.map(target),
});

/** One number. `steps` are `[from, colour]`, the first from the bottom. */
const stat = (title, description, unit, expr, steps = [[null, 'text']], more = {}) => ({
  type: 'stat', title, description, width: more.width ?? 4, height: 4,
  fieldConfig: {
    defaults: { unit, thresholds: { mode: 'absolute', steps: steps.map(([value, color]) => ({ value, color })) }, mappings: more.mappings ?? [] },
    overrides: [],
  },
  options: { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'background', graphMode: 'area', textMode: 'auto' },
  targets: [target([expr, ''], 0)],
});

const quantiles = (metric) => [0.5, 0.9, 0.99].map((q) => [
  `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket[${RATE}])))`, `p${q * 100}`,
]);
const rate = (metric, by) => `sum${by ? ` by (${by})` : ''} (rate(${metric}[${RATE}]))`;
const good = (limit) => [[null, 'green'], [limit, 'red']];
const low = (limit) => [[null, 'red'], [limit, 'green']];

const SERVED = [
  stat('People connected', 'Open sockets on all instances.', 'short', 'sum(starling_connections)'),
  stat('Instances', 'That answer.', 'short', 'count(up{job="starling"} == 1)', low(1)),
  stat('Messages stored', 'A second, on all instances.', 'ops', rate('starling_messages_stored_total')),
  stat('Sends that fail', 'Of all sends, through no fault of the sender.', 'percentunit',
    `(sum(rate(starling_events_total{event="message:send", result=~"internal|unavailable"}[${RATE}])) or vector(0)) / sum(rate(starling_events_total{event="message:send"}[${RATE}]))`, good(0.02)),
  stat('Send until stored, p99', 'From reading the event to the commit.', 's',
    `histogram_quantile(0.99, sum by (le) (rate(starling_send_commit_seconds_bucket[${RATE}])))`, good(1)),
  stat('Alerts', 'That fire.', 'short', 'count(ALERTS{alertname=~"Starling.*", alertstate="firing"}) or vector(0)', good(1)),
];

const DASHBOARDS = {
  users: ['Starling: people', 'Whether people are served: the first row says so at a glance.', [
    ...SERVED,
    graph('Connections', 'Open sockets of each instance; they should lie close together.', 'short', [['sum by (instance) (starling_connections)']], { stack: true }),
    graph('Connections by transport', 'Much polling means that something in between stops WebSockets.', 'short', [['sum by (transport) (starling_connections)', '{{transport}}']], { stack: true }),
    graph('Handshakes', 'Attempts to connect, by outcome.', 'ops', [[rate('starling_handshakes_total', 'result'), '{{result}}']], { stack: true }),
    graph('Connects', 'To the chat, by outcome. `unavailable` come again by themselves.', 'ops', [[rate('starling_connects_total', 'result'), '{{result}}']], { stack: true }),
    graph('Events', 'What clients ask for.', 'ops', [[rate('starling_events_total', 'event'), '{{event}}']], { stack: true }),
    graph('Answers other than ok', 'By code. `rate_limited` and `validation_failed` are the clients\' doing.', 'ops', [[`sum by (result) (rate(starling_events_total{result!="ok"}[${RATE}]))`, '{{result}}']]),
    graph('Refused by limits', 'Sends and handshakes above the limits.', 'ops', [[rate('starling_rate_limited_total', 'what'), '{{what}}']]),
    graph('Versions', 'Instances of each version.', 'short', [['count by (version) (starling_build_info)', '{{version}}']], { stack: true }),
    graph('Draining', 'Instances that are about to go.', 'short', [['sum(starling_draining)', 'draining']]),
  ]],
  delivery: ['Starling: delivery', 'From the sender to the screens of the others.', [
    graph('Send until stored', 'From reading the event to the commit.', 's', quantiles('starling_send_commit_seconds')),
    graph('Stored until delivered', 'From the commit to the write to the last socket here; other instances\' messages too.', 's', quantiles('starling_commit_delivery_seconds')),
    graph('Waiting to be written', 'From the first frame that waits until the last socket is written to.', 's', quantiles('starling_flush_seconds')),
    graph('From other instances', 'From `createdAt` there until queued for the last socket here; by two clocks.', 's', quantiles('starling_remote_delivery_seconds')),
    graph('Messages stored', 'By each instance.', 'ops', [[rate('starling_messages_stored_total', 'instance')]], { stack: true }),
    graph('Messages in a transaction', 'On average: under load a transaction takes more, which is what makes it bearable.', 'short', [[`${rate('starling_batch_messages_sum')} / ${rate('starling_batch_messages_count')}`, 'messages']]),
    graph('Frames to clients', '`direct` are encoded once for all; `engine` one by one (polling, upgrades).', 'ops', [[rate('starling_frames_total', 'way'), '{{way}}']]),
    graph('Writes to sockets', 'Fewer than frames: frames that meet in a queue go out together.', 'ops', [[rate('starling_socket_writes_total'), 'writes'], [rate('starling_merged_frames_total'), 'frames that needed none']]),
    graph('Waiting for slow readers', 'Bytes in the queues of sockets.', 'bytes', [['sum by (instance) (starling_waiting_bytes)']]),
    graph('Slow readers', 'Connections that were closed, and typing or presence that was left out for them.', 'ops', [[rate('starling_slow_readers_closed_total', 'why'), 'closed: {{why}}'], [rate('starling_droppable_dropped_total'), 'left out']]),
    graph('Offline deliveries', 'Batches of up to 50 messages.', 'ops', [[rate('starling_offline_batches_total'), 'batches']]),
    graph('Told again', 'Sockets that were told to ask (`sync:required`), and messages that two instances changed at about the same time.', 'ops', [[rate('starling_sync_required_total'), 'sync:required'], [rate('starling_changes_settled_total'), 'settled']]),
    graph('Gaps', 'Places in a room\'s order that Redis did not bring in time, and messages read from PostgreSQL instead.', 'ops', [[rate('starling_gaps_found_total'), 'found'], [rate('starling_gaps_healed_total'), 'healed'], [rate('starling_messages_mended_total'), 'messages']]),
  ]],
  database: ['Starling: database', 'What the instances see of PostgreSQL.', [
    stat('Errors', 'A second.', 'ops', `${rate('starling_database_errors_total')} or vector(0)`, good(0.5), { width: 6 }),
    stat('Connections', 'Of all pools; PostgreSQL allows 300.', 'short', 'sum(starling_pool_connections)', good(250), { width: 6 }),
    stat('Waiting', 'For a connection of a pool.', 'short', 'sum(starling_pool_waiting)', good(1), { width: 6 }),
    stat('Query, p99', '', 's', `histogram_quantile(0.99, sum by (le) (rate(starling_postgres_seconds_bucket[${RATE}])))`, good(0.5), { width: 6 }),
    graph('Pool', 'Connections of each instance, and those that are idle.', 'short', [['sum by (instance) (starling_pool_connections)', '{{instance}} open'], ['sum by (instance) (starling_pool_idle)', '{{instance}} idle']]),
    graph('Waiting for a connection', 'More than a moment: the pool is too small, or queries are too slow.', 'short', [['sum by (instance) (starling_pool_waiting)']]),
    graph('Queries', 'How long they take.', 's', quantiles('starling_postgres_seconds')),
    graph('Errors', 'Each is an `unavailable` to somebody.', 'ops', [[rate('starling_database_errors_total', 'instance')]]),
    graph('Cache of the newest messages', 'Pages that were read without PostgreSQL\'s help.', 'ops', [[rate('starling_room_cache_total', 'result'), '{{result}}']], { stack: true }),
    graph('Marks in a transaction', 'Receipts and read marks, on average.', 'short', [[`${rate('starling_batch_marks_sum')} / ${rate('starling_batch_marks_count')}`, 'marks']]),
    graph('Transactions that store messages', 'A second; compare with the messages stored.', 'ops', [[rate('starling_batch_messages_count'), 'transactions'], [rate('starling_messages_stored_total'), 'messages']]),
  ]],
  redis: ['Starling: Redis', 'How the instances reach each other.', [
    stat('Redis', 'From the instance that sees it worst.', 'short', 'min(starling_redis_up)', low(1), { width: 6, mappings: [{ type: 'value', options: { 0: { text: 'away' }, 1: { text: 'here' } } }] }),
    stat('Errors', 'Failed commands a second.', 'ops', `${rate('starling_redis_errors_total')} or vector(0)`, good(1), { width: 6 }),
    stat('Lost on the way in', 'In the last hour; read from PostgreSQL instead.', 'short', 'sum(increase(starling_cluster_lost_total[1h]))', good(1), { width: 6 }),
    stat('Command, p99', '', 's', `histogram_quantile(0.99, sum by (le) (rate(starling_redis_seconds_bucket[${RATE}])))`, good(0.05), { width: 6 }),
    graph('Between instances', 'Messages to and from the adapter.', 'ops', [[rate('starling_cluster_published_total'), 'published'], [rate('starling_cluster_received_total'), 'received']]),
    graph('What went wrong', 'Not published (Redis away), lost (inbox full), malformed (somebody else on these channels).', 'ops', [[rate('starling_cluster_unpublished_total'), 'unpublished'], [rate('starling_cluster_lost_total'), 'lost'], [rate('starling_cluster_malformed_total'), 'malformed']]),
    graph('Commands', 'How long they take.', 's', quantiles('starling_redis_seconds')),
    graph('Errors', 'Failed commands, and times that an instance gave up waiting and went on alone.', 'ops', [[rate('starling_redis_errors_total', 'instance')], [rate('starling_redis_silences_total'), 'silences']]),
    graph('Connected to Redis', 'By instance.', 'short', [['starling_redis_up']]),
    graph('Cache writes left out', 'The queue of the room cache was full.', 'ops', [[rate('starling_room_cache_dropped_total'), 'left out']]),
  ]],
  herd: ['Starling: herd', 'Everybody comes back at once: after a deployment, a restart, a network that was away.', [
    graph('People', 'On all instances.', 'short', [['sum(starling_connections)', 'connected']]),
    graph('Come and refused', 'Handshakes by outcome: the limits make a herd a queue.', 'ops', [[rate('starling_handshakes_total', 'result'), '{{result}}'], [`sum(rate(starling_rate_limited_total{what="connects"}[${RATE}]))`, 'over the limit']], { stack: true }),
    graph('Sessions', 'Of the engine: connected ones, and those that are still on the way in.', 'short', [['sum(starling_engine_sessions)', 'sessions'], ['sum(starling_connections)', 'connected'], ['sum(starling_direct_sessions)', 'by WebSocket']]),
    graph('Connects that read twice', 'Somebody spoke in one of the rooms meanwhile.', 'ops', [[rate('starling_arrivals_repeated_total'), 'read twice']]),
    graph('Upgrades', 'From polling to WebSocket.', 'ops', [[rate('starling_upgrades_total'), 'upgrades']]),
    graph('Pools under the herd', 'Busy database connections of each instance.', 'short', [['sum by (instance) (starling_pool_connections) - sum by (instance) (starling_pool_idle)']]),
    graph('Offline batches', 'What those who return have missed.', 'ops', [[rate('starling_offline_batches_total'), 'batches']]),
    graph('Waiting bytes', 'Queued for sockets.', 'bytes', [['sum(starling_waiting_bytes)', 'bytes']]),
    graph('Rooms in memory', 'Lists of sockets that instances keep.', 'short', [['sum by (instance) (starling_socket_lists)']]),
  ]],
};

/** Puts panels into rows of 24 columns. */
function arrange(panels) {
  let x = 0;
  let y = 0;
  let tallest = 0;
  return panels.map(({ width, height, ...panel }, i) => {
    if (x + width > 24) {
      x = 0;
      y += tallest;
      tallest = 0;
    }
    const gridPos = { x, y, w: width, h: height };
    x += width;
    tallest = Math.max(tallest, height);
    return { id: i + 1, datasource: DATASOURCE, gridPos, ...panel };
  });
}

export function dashboards() {
  return Object.entries(DASHBOARDS).map(([name, [title, description, panels]]) => ({
    name,
    json: {
      uid: `starling-${name}`,
      title,
      description,
      tags: ['starling'],
      schemaVersion: 39,
      version: 1,
      editable: false,
      refresh: '10s',
      time: { from: 'now-1h', to: 'now' },
      timezone: 'browser',
      graphTooltip: 1,
      templating: { list: [{ name: 'datasource', type: 'datasource', query: 'prometheus', label: 'Data source', hide: 0 }] },
      links: [{ type: 'dashboards', tags: ['starling'], title: 'Starling', asDropdown: false, includeVars: true, keepTime: true }],
      annotations: { list: [] },
      panels: arrange(panels),
    },
  }));
}

const text = (json) => `${JSON.stringify(json, null, 2)}\n`;
const file = (name) => fileURLToPath(new URL(`grafana/${name}.json`, import.meta.url));

/** Names of dashboards whose file is not what this makes. */
export const stale = () => dashboards().filter(({ name, json }) => readFileSync(file(name), 'utf8') !== text(json)).map(({ name }) => name);

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  dashboards().forEach(({ name, json }) => writeFileSync(file(name), text(json)));
}
