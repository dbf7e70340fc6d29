// Embed texts with transformers.js: FOLDER TEXTS.json OUT.json.

import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The package lies in the folder that this is run in.
const require = createRequire(path.join(process.cwd(), 'package.json'));
const { AutoModel, AutoTokenizer, env, pipeline } = await import(pathToFileURL(require.resolve('@huggingface/transformers')));

const [folder, texts, out] = process.argv.slice(2).map((each) => path.resolve(each));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const rows = JSON.parse(fs.readFileSync(texts, 'utf-8'));

const model = await AutoModel.from_pretrained(name);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const { sentence_embedding } = await model(tokenizer(rows, { padding: true, truncation: true }));

// The pipeline pools by itself, by what its user says, from the vectors of the tokens.
const embed = await pipeline('feature-extraction', name);
const pooled = await embed(rows, { pooling: 'mean', normalize: true });

const vectors = sentence_embedding.tolist();
const apart = Math.max(...pooled.tolist().flatMap((row, i) => row.map((value, j) => Math.abs(value - vectors[i][j]))));
if (!(apart < 1e-5)) throw new Error(`its pipeline is off by ${apart}`);
fs.writeFileSync(out, JSON.stringify({ versions: { 'transformers.js': env.version, node: process.version }, vectors }));
