// node consume.mjs DIR MODULE: hold the operations that a JavaScript module exports against a folder of cases.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

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

function number(text) {
  if (!text.includes("x")) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[text];
  const [, sign, whole, fraction = "", exponent] = /^(-?)0x([01])(?:\.([0-9a-f]+))?p([+-]\d+)$/.exec(text);
  return (sign ? -1 : 1) * parseInt(whole + fraction, 16) * 2 ** (exponent - 4 * fraction.length);
}

const integer = (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text));

function array({ type, shape, data }) {
  if (type === "none") return null;
  const rows = (flat, n) => Array.from({ length: flat.length / n }, (_, k) => flat.slice(k * n, (k + 1) * n));
  const read = { float: number, int: integer, bool: Boolean }[type];
  return shape.reduceRight(rows, data.map((value) => read(value)))[0];
}

const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
const product = (matrix) => (vector) => matrix.map((row) => dot(row, vector));
const FUNCTIONS = {
  matvec: ({ matrix }) => product(matrix),
  evaluate: ({ matrix, slope, parameters }) => (candidate) => {
    const step = candidate.map((x, k) => x - parameters[k]);
    const kl = dot(step, product(matrix)(step)) / 2;
    return [dot(slope, step) - kl, kl];
  },
};

const option = ({ type, value = null }) => (type === "float" ? number(value) : value);

function call(target, names, given, ...before) {
  const pairs = (entries, decode) => Object.fromEntries(Object.entries(entries).map(([k, x]) => [k, decode(x)]));
  const arrays = pairs(given.arguments, array);
  const options = pairs(given.options, option);
  return target(...before, ...names.map((name) => FUNCTIONS[name]?.(arrays) ?? arrays[name]), options);
}

const shapeOf = (x) => (Array.isArray(x) ? [x.length, ...shapeOf(x[0])] : []);

// Returns what is wrong with an answer, and keeps count of the elements that were decided.
function judge(got, { shape, positions, low, high }, what, seen) {
  if (`${shapeOf(got)}` !== `${shape}`) return `${what} has shape [${shapeOf(got)}], expected [${shape}]`;
  const flat = [got].flat(Infinity);
  seen.elements += positions.length;
  for (const [k, at] of positions.entries()) {
    if (low[k] === null) continue;
    seen.decided += 1;
    const [lowest, highest] = [number(low[k]), number(high[k])];
    const inside = typeof flat[at] === "number" && lowest <= flat[at] && flat[at] <= highest;
    if (!inside) return `${what}, element ${at}: got ${flat[at]}, permitted ${lowest} to ${highest}`;
  }
}

function verdict(given, file, operation, gradient) {
  const seen = { calls: 0, elements: 0, decided: 0 };
  let wrong;
  if (given.result) {
    const got = call(operation, file.call, given);
    seen.calls += 1;
    wrong = judge(file.keys.length ? file.keys.map((key) => got[key]) : got, given.result, "result", seen);
  }
  if (given.gradients && gradient) {
    const got = call(gradient, file.call, given, array(given.upstream));
    seen.calls += 1;
    for (const [name, permitted] of Object.entries(given.gradients))
      wrong ??= judge(got[name], permitted, `gradient in ${name}`, seen);
  }
  if (wrong) return ["failed", wrong];
  if (!seen.calls) return ["skipped"];
  return [seen.decided || !seen.elements ? "passed" : "undecided"];
}

// Where a case comes from and how it was called, which is what its verdict is about.
function told(k, { region, clauses, options }, why) {
  const shown = (x) => (typeof x === "number" ? x : JSON.stringify(x));
  const given = Object.entries(options).map(([name, x]) => `${name}=${shown(option(x))}`);
  const called = given.length ? `options ${given.join(", ")}` : "no options";
  return `\n  case ${k}, region ${region}, ${clauses.join(", ")}\n  ${called}\n  ${why}`;
}

function attempt(...parts) {
  try {
    return verdict(...parts);
  } catch (error) {
    return error.name === "NotImplementedError" ? ["skipped"] : ["failed", `${error}`];
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
