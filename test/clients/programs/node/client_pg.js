// node's pg, see README.md.
'use strict';
const readline = require('node:readline/promises');
const { Client } = require('pg');

const ok = (step) => console.log('ok ' + step);
const check = (good, what) => {
  if (!good) throw new Error(what);
};
const sleep = (ms, keep = true) => new Promise((done) => (keep ? setTimeout(done, ms) : setTimeout(done, ms).unref()));

async function connect() {
  const c = new Client({ ssl: { rejectUnauthorized: false }, connectionTimeoutMillis: 10000 });
  c.lost = null;
  c.on('error', (e) => (c.lost = e)); // an idle client hears of its end here
  await c.connect();
  return c;
}

async function basics(c) {
  let r = await c.query('SELECT $1::int + 1 AS a, $2::text AS b, $3::bytea AS c', [41, 'läß', Buffer.from([0, 1, 255])]);
  check(r.rows[0].a === 42 && r.rows[0].b === 'läß' && r.rows[0].c.equals(Buffer.from([0, 1, 255])), 'params');
  ok('params');
  for (let i = 0; i < 20; i++) {
    r = await c.query({ name: 'twice', text: 'SELECT $1::int * 2 AS n', values: [i] });
    check(r.rows[0].n === 2 * i, 'prepared');
  }
  ok('prepared');
  await c.query('DROP TABLE IF EXISTS c_node');
  await c.query('CREATE TABLE c_node (i int, s text)');
  await c.query('BEGIN');
  await c.query("INSERT INTO c_node VALUES (1, 'a')");
  await c.query('ROLLBACK');
  check((await c.query('SELECT count(*)::int AS n FROM c_node')).rows[0].n === 0, 'rolled back');
  await c.query("INSERT INTO c_node VALUES (1, 'a')");
  ok('transaction');
  r = await c.query("SELECT i, repeat('x', 1000) AS s FROM generate_series(1, 20000) i");
  check(r.rows.length === 20000 && r.rows.every((row, k) => row.i === k + 1 && row.s.length === 1000), 'large');
  ok('large');
}

async function more(c) {
  const other = await connect();
  const begun = Date.now();
  const slow = c.query('SELECT pg_sleep(30)').catch((e) => e);
  await sleep(300);
  new Client({ ssl: false, host: c.host, port: c.port }).cancel(c, c.activeQuery ?? c._activeQuery);
  const e = await slow;
  check(e.code === '57014' && Date.now() - begun < 15000, `cancel: ${e}`);
  check((await c.query('SELECT 1 AS n')).rows[0].n === 1, 'goes on');
  ok('cancel');
  await c.query('LISTEN c_node');
  const heard = new Promise((done) => c.once('notification', done));
  await other.query("NOTIFY c_node, 'hello'");
  check((await Promise.race([heard, sleep(10000, false).then(() => ({}))])).payload === 'hello', 'notify');
  await other.end();
  ok('notify');
}

async function main() {
  let c = await connect();
  await basics(c);
  await more(c);
  const input = readline.createInterface({ input: process.stdin });
  console.log('ready');
  await new Promise((done) => input.once('line', done));
  input.close();
  const e = await c.query('SELECT 1').then(() => null, (why) => why);
  check(e !== null, 'the session is still there');
  console.log('lost ' + ((c.lost && c.lost.code) || e.code || '08006'));
  const until = Date.now() + 15000;
  for (c = null; c === null; ) {
    c = await connect().catch((why) => {
      check(Date.now() < until, `not again: ${why}`);
      return null;
    });
  }
  await c.query("INSERT INTO c_node VALUES (0, 'again')");
  await c.end();
  console.log('again');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
