// Bundles src/ into ../assets/: explorer.js, explorer.css and the licence notices of what is in them.
//
//     node build.mjs [FOLDER]    into another folder, to compare
//
// The same sources and versions give the same bytes. Every library that ends up in the bundle has its exact version in
// package.json, as a dependency or as an override of what a dependency would take.

import { build, version as esbuildVersion } from "esbuild";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(process.argv[2] ?? path.join(here, "..", "assets"));
const manifest = JSON.parse(await readFile(path.join(here, "package.json"), "utf8"));
const pinned = { ...manifest.overrides, ...manifest.dependencies };

const shared = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: "utf8",
  legalComments: "none", // the notices are in LICENCES.txt, whole
  target: ["es2022"],
  write: false,
  metafile: true,
};
const script = await build({ ...shared, entryPoints: ["src/main.js"], format: "iife", supported: { "inline-script": false } });
const browsers = ["chrome123", "firefox120", "safari17.5"]; // the first ones that know light-dark()
const style = await build({ ...shared, entryPoints: ["src/explorer.css"], target: browsers });

const libraries = await bundled(script.metafile);
const unpinned = libraries.filter(({ name, version }) => pinned[name] !== version);
if (unpinned.length) {
  const wanted = unpinned.map(({ name, version }) => `"${name}": "${version}"`).join(", ");
  throw new Error(`The bundle has versions that package.json does not: ${wanted}.`);
}
if (manifest.devDependencies.esbuild !== esbuildVersion) {
  throw new Error(`esbuild is ${esbuildVersion}, but package.json has ${manifest.devDependencies.esbuild}.`);
}
const versions = libraries.map(({ name, version }) => `${name} ${version}`).join(", ");
const banner = `/* Built by web/build.mjs with esbuild ${esbuildVersion} of ${versions}; notices in LICENCES.txt. */\n`;

await mkdir(target, { recursive: true });
await writeFile(path.join(target, "explorer.js"), banner + script.outputFiles[0].text);
await writeFile(path.join(target, "explorer.css"), style.outputFiles[0].text);
await writeFile(path.join(target, "LICENCES.txt"), await notices(libraries));
console.log(`${target}: explorer.js has ${(script.outputFiles[0].contents.length / 1024).toFixed(0)} KiB`);

/** The packages that have code in the bundle, by name. */
async function bundled(metafile) {
  const folders = new Set();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const match = bytesInOutput > 0 && input.match(/^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//);
      if (match) folders.add(match[1]);
    }
  }
  const found = [...folders].sort().map(async (name) => {
    const about = JSON.parse(await readFile(path.join(here, "node_modules", name, "package.json"), "utf8"));
    return { name, version: about.version, licence: about.license };
  });
  return Promise.all(found);
}

/** Name, version, licence and its text, of every library. */
async function notices(libraries) {
  const parts = ["What explorer.js is built of, beside the code of mosld-bench (Apache-2.0).\n"];
  for (const { name, version, licence } of libraries) {
    const folder = path.join(here, "node_modules", name);
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} carries no licence text.`);
    const text = (await readFile(path.join(folder, file), "utf8")).replaceAll("\r\n", "\n").trim();
    parts.push(`${"=".repeat(78)}\n${name} ${version} (${licence})\n${"-".repeat(78)}\n${text}\n`);
  }
  return parts.join("\n");
}
