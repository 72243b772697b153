// Sequelize, an object mapper on node's pg, see README.md.
'use strict';
const readline = require('node:readline/promises');
const { Sequelize, DataTypes } = require('sequelize');

const ok = (step) => console.log('ok ' + step);
const check = (good, what) => {
  if (!good) throw new Error(what);
};

async function main() {
  const db = new Sequelize(process.env.PGDATABASE, process.env.PGUSER, process.env.PGPASSWORD, {
    host: process.env.PGHOST, port: Number(process.env.PGPORT), dialect: 'postgres', logging: false,
    pool: { max: 2 },
  });
  const Thing = db.define('thing', { name: DataTypes.STRING }, { tableName: 'c_sequelize' });
  const [rows] = await db.query('SELECT $1::int + 1 AS n', { bind: [41] });
  check(rows[0].n === 42, 'params');
  ok('params');
  await Thing.sync({ force: true });
  await db.transaction(async (t) => {
    await Thing.create({ name: 'rolled back' }, { transaction: t });
    throw new Error('on purpose');
  }).catch((e) => check(e.message === 'on purpose', e.message));
  check((await Thing.count()) === 0, 'rolled back');
  await db.transaction((t) => Thing.bulkCreate([...Array(2000).keys()].map((i) => ({ name: `thing ${i}` })),
    { transaction: t }));
  check((await Thing.count({ where: { name: 'thing 7' } })) === 1, 'committed');
  ok('transaction');
  const held = await db.transaction();
  check((await Thing.count({ transaction: held })) === 2000, 'in a transaction');
  const input = readline.createInterface({ input: process.stdin });
  console.log('ready');
  await new Promise((done) => input.once('line', done));
  input.close();
  const e = await Thing.count({ transaction: held }).then(() => null, (why) => why);
  check(e !== null, 'the session is still there');
  console.log('lost ' + ((e.original && e.original.code) || '-'));
  await held.rollback().catch(() => null);
  const until = Date.now() + 15000;
  while (!(await Thing.create({ name: 'again' }).then(() => true, () => false)))
    check(Date.now() < until, 'not again');
  await db.close();
  console.log('again');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
