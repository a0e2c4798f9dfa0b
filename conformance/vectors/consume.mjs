// node consume.mjs DIR MODULE: hold the operations that a JavaScript module exports against a folder of cases.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { attempt, told } from "./judge.mjs";

const SCHEMA = 1;
const [folder, path] = process.argv.slice(2);

function stop(message) {
  console.error(message);
  process.exit(1);
}

function read(name) {
  try {
    return JSON.parse(readFileSync(join(folder, name), "utf8"));
  } catch (error) {
    stop(`${folder} is no folder of cases, as rlspec vectors writes them: ${error.message}`);
  }
}

async function load(url) {
  try {
    return await import(url);
  } catch (error) {
    const place = `${error?.stack}`.split("\n").find((line) => line.includes(`${url}:`)) ?? "";
    const hint = error instanceof SyntaxError ? ` (node --check ${path} shows where)` : place;
    return stop(`${path} cannot be imported: ${error}${hint}`);
  }
}

if (process.argv.length !== 4) stop("usage: node consume.mjs DIR MODULE");
const { schema, files } = read("manifest.json");
if (schema !== SCHEMA) stop(`${folder} has schema ${schema}, this program reads ${SCHEMA}`);
const { dtypes = ["float64"], gradients = {}, ...operations } = await load(pathToFileURL(resolve(path)).href);
let [judged, wrong] = [0, 0];
for (const [name, { operation, dtype }] of Object.entries(files)) {
  if (!dtypes.includes(dtype) || !operations[operation]) continue;
  const file = read(name);
  const counts = { passed: 0, failed: 0, undecided: 0, skipped: 0 };
  let first = "";
  for (const [k, given] of file.cases.entries()) {
    const [outcome, why] = attempt(given, file, operations[operation], gradients[operation]);
    counts[outcome] += 1;
    if (why) first ||= told(k, given, why);
  }
  const figures = Object.entries(counts).map(([outcome, count]) => `${count} ${outcome}`);
  console.log(`${operation} in ${dtype}: ${figures.join(", ")}${first}`);
  judged += 1;
  wrong += counts.failed > 0 || counts.passed === 0;
}
const there = new Set(Object.values(files).map(({ operation }) => operation));
const strange = Object.keys({ ...operations, ...gradients }).filter((name) => !there.has(name));
const lacking = [...there].filter((name) => !operations[name]);
if (strange.length) console.log(`exported, but no operation of ${folder}: ${strange.join(", ")}`);
if (lacking.length) console.log(`not exported, so not judged: ${lacking.join(", ")}`);
if (!judged) console.log(`${path} provides no operation and dtype of ${folder}`);
process.exitCode = wrong || !judged ? 1 : 0;
