// Talks to a running server with OpenAI's own client. In an empty directory:
//
//	npm init -y && npm install openai
//	photon serve -addr 127.0.0.1:8123 -texts 1 -waiting 1 &
//	cp …/serve/testdata/openai.mjs . && node openai.mjs http://127.0.0.1:8123/v1
//
// It prints a line for each check and exits with 1 if one fails.
import OpenAI from 'openai'

const client = new OpenAI({baseURL: process.argv[2], apiKey: process.env.PHOTON_TOKEN || 'none', maxRetries: 0})
const check = async (what, f) => {
  try {
    const wrong = await f()
    console.log(wrong ? 'FAIL' : 'ok  ', what, wrong || '')
    if (wrong) process.exitCode = 1
  } catch (error) {
    console.log('FAIL', what, error)
    process.exitCode = 1
  }
}
const differs = (got, want) => JSON.stringify(got) === JSON.stringify(want) ? '' : `${JSON.stringify(got)}, want ${JSON.stringify(want)}`

const model = (await client.models.list()).data[0].id
const prompt = {model, prompt: 'Once upon a time', seed: 7, max_tokens: 30}
const chat = {model, messages: [{role: 'user', content: 'How are you?'}], seed: 7, max_completion_tokens: 30}
let whole, said

await check('models.retrieve', async () => differs((await client.models.retrieve(model)).id, model))
await check('completions.create', async () => {
  whole = await client.completions.create(prompt)
  return differs([whole.object, whole.usage.completion_tokens <= 30, whole.choices[0].text.length > 0], ['text_completion', true, true])
})
await check('completions, streamed', async () => {
  let text = '', finish = null, usage = null
  for await (const part of await client.completions.create({...prompt, stream: true, stream_options: {include_usage: true}})) {
    text += part.choices[0]?.text ?? ''
    finish = part.choices[0]?.finish_reason ?? finish
    usage = part.usage ?? usage
  }
  return differs([text, finish, usage], [whole.choices[0].text, whole.choices[0].finish_reason, whole.usage])
})
await check('completions with echo and logprobs', async () => {
  const {choices: [c]} = await client.completions.create({...prompt, echo: true, logprobs: 2})
  return differs([c.text, c.logprobs.tokens.length === c.logprobs.token_logprobs.length], [prompt.prompt + whole.choices[0].text, true])
})
await check('chat.completions.create', async () => {
  said = await client.chat.completions.create({...chat, logprobs: true, top_logprobs: 2})
  const {message, logprobs} = said.choices[0]
  return differs([message.role, message.content.length > 0, logprobs.content[0].top_logprobs.length], ['assistant', true, 2])
})
await check('chat.completions.stream', async () => {
  const stream = client.chat.completions.stream(chat)
  const parts = []
  stream.on('content', delta => parts.push(delta))
  return differs([await stream.finalContent(), parts.join('')], Array(2).fill(said.choices[0].message.content))
})
await check('an error', async () => {
  try {
    await client.completions.create({...prompt, temperature: -1})
  } catch (error) {
    return differs([error.constructor.name, error.status, error.param], ['BadRequestError', 400, 'temperature'])
  }
  return 'no error'
})
await check('abort, then another', async () => {
  const stream = await client.completions.create({...prompt, max_tokens: 20000, stream: true, logit_bias: {4095: -100}})
  for await (const _ of stream) break // the client closes the connection
  return differs((await client.completions.create(prompt)).choices[0].text, whole.choices[0].text)
})
await check('retry after 429', async () => {
  const long = {...prompt, max_tokens: 20000, stream: true, logit_bias: {4095: -100}}
  const streams = [await client.completions.create(long), client.completions.create({...long, stream: false, max_tokens: 1})]
  await new Promise(done => setTimeout(done, 100))
  let refused = 0
  try {
    await client.completions.create(prompt)
  } catch (error) {
    refused = error.status
  }
  const patient = client.completions.create(prompt, {maxRetries: 5})
  setTimeout(() => streams[0].controller.abort(), 300)
  const text = (await patient).choices[0].text
  await streams[1]
  return differs([refused, text], [429, whole.choices[0].text])
})
