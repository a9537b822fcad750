// One call of ollama-js: node client.mjs URL HEADERS WHAT, with JSON lines out.
import { readFileSync } from 'node:fs'
import { Ollama } from 'ollama'

const [host, headers, what] = process.argv.slice(2)
const ollama = new Ollama({ host, headers: JSON.parse(headers) })
const model = 'tiny'
const messages = [{ role: 'user', content: 'hello' }]
const tell = (value) => process.stdout.write(JSON.stringify(value) + '\n')

const weather = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'd',
    parameters: { type: 'object', required: ['city'], properties: { city: { type: 'string' } } },
  },
}

const calls = {
  async stream() {
    for await (const part of await ollama.chat({ model, messages, stream: true })) {
      tell({ said: part.message.content })
    }
  },
  async whole() {
    tell({ said: (await ollama.chat({ model, messages })).message.content })
  },
  async features() {
    const thought = await ollama.chat({ model, messages, think: true })
    const called = await ollama.chat({ model, messages, tools: [weather] })
    const shaped = await ollama.chat({ model, messages, format: 'json' })
    const image = readFileSync(process.argv[1])
    const seen = await ollama.chat({ model, messages: [{ ...messages[0], images: [image] }] })
    const embedded = await ollama.embed({ model, input: Array(2000).fill('a') })
    const pulled = []
    for await (const part of await ollama.pull({ model: 'new', stream: true })) pulled.push(part.status)
    await ollama.copy({ source: 'new', destination: 'mine' })
    await ollama.delete({ model: 'new' })
    tell({
      thinking: thought.message.thinking,
      tool: called.message.tool_calls[0].function.name,
      shaped: JSON.parse(shaped.message.content),
      seen: seen.message.content,
      embeddings: embedded.embeddings.length,
      pulled: pulled.at(-1),
      models: (await ollama.list()).models.map((one) => one.name),
      running: (await ollama.ps()).models.map((one) => one.name),
      capabilities: (await ollama.show({ model })).capabilities,
    })
  },
  async unknown() {
    await ollama.generate({ model: 'nope', prompt: 'hi' })
  },
  async cancel() {
    const stream = await ollama.chat({ model, messages, stream: true })
    for await (const part of stream) {
      tell({ said: part.message.content })
      setTimeout(() => stream.abort(), 50)
    }
  },
}

try {
  await calls[what]()
} catch (error) {
  tell({ error: error.message, name: error.name, status: error.status_code })
  process.exitCode = 1
}
