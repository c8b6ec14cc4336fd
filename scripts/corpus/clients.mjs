// Runs JavaScript clients against the recorder: node clients.mjs BASE [CASE …].
// Run in a folder with node_modules; each case that a client refuses to send is named and left out.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const require = createRequire(process.cwd() + "/x.cjs");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const [base, ...chosen] = process.argv.slice(2);
const url = (client) => `${base}/${client}/api/v1`;
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const tried = async (name, run) => {
  try {
    await run();
  } catch (error) {
    console.error(name, String(error).slice(0, 200));
  }
};
const told = globalThis.fetch; // one client asks a public site for a tokenizer
globalThis.fetch = (at, init) => (String(at?.url ?? at).startsWith(base) ? told(at, init) : Promise.resolve(new Response("{}")));
const whole = (name, run) => (chosen.length && !chosen.includes(name) ? undefined : tried(name, run));
const z = (await load("zod")).z;
const City = z.object({ city: z.string(), days: z.number().optional() });
const Report = z.object({ sky: z.enum(["clear", "rain"]), degrees: z.number(), tags: z.array(z.string()) });
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

await whole("openai", async () => {
  const { default: OpenAI } = await load("openai");
  const { zodResponseFormat, zodFunction, zodTextFormat } = await load("openai/helpers/zod");
  const ai = new OpenAI({ baseURL: url("openai-node"), apiKey: "none" });
  const model = "openai/gpt-4o-mini";
  const messages = [{ role: "user", content: "Will it rain?" }];
  const run = { function: { name: "weather", parse: JSON.parse, description: "Weather", parameters: schema, function: () => "rain" }, type: "function" };
  await tried("parse", () => ai.chat.completions.parse({ model, messages, response_format: zodResponseFormat(Report, "report") }));
  await tried("runTools", () => ai.chat.completions.runTools({ model, messages, tools: [run] }).done());
  await tried("runTools stream", () => ai.chat.completions.runTools({ model, messages, tools: [run], stream: true }).done());
  await tried("zodFunction", () => ai.chat.completions.runTools({ model, messages, tools: [zodFunction({ name: "weather", parameters: z.object({ city: z.string() }), function: () => "rain" })] }).done());
  await tried("stream", async () => {
    const stream = ai.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
    const last = await stream.finalMessage();
    await ai.chat.completions.create({ model, messages: [...messages, last, { role: "user", content: "And then?" }] });
  });
  await tried("responses", async () => {
    const first = await ai.responses.create({ model, input: "Will it rain?", store: false, include: ["reasoning.encrypted_content"] });
    await ai.responses.create({ model, input: [...messages, ...first.output, { role: "user", content: "And then?" }], store: false });
  });
  await tried("responses.parse", () => ai.responses.parse({ model, input: messages, text: { format: zodTextFormat(Report, "report") } }));
  await tried("responses.stream", async () => {
    const tools = [{ type: "function", name: "weather", description: "Weather", parameters: schema, strict: false }];
    const first = await ai.responses.stream({ model, input: messages, tools, store: false }).finalResponse();
    const call = first.output.find((item) => item.type === "function_call");
    await ai.responses.stream({ model, tools, store: false, input: [...messages, ...first.output, { type: "function_call_output", call_id: call.call_id, output: "rain" }] }).finalResponse();
  });
});

await whole("anthropic", async () => {
  const { default: Anthropic } = await load("@anthropic-ai/sdk");
  const { betaZodTool, betaZodOutputFormat } = await load("@anthropic-ai/sdk/helpers/beta/zod");
  const ai = new Anthropic({ baseURL: `${base}/anthropic-node/api`, apiKey: "none" });
  const call = { model: "anthropic/claude-sonnet-4", max_tokens: 2048, messages: [{ role: "user", content: "Will it rain?" }] };
  const tool = betaZodTool({ name: "weather", description: "Weather", inputSchema: z.object({ city: z.string() }), run: () => "rain" });
  await tried("toolRunner", async () => void (await ai.beta.messages.toolRunner({ ...call, tools: [tool] })));
  await tried("toolRunner thinking", async () => void (await ai.beta.messages.toolRunner({ ...call, tools: [tool], thinking: { type: "enabled", budget_tokens: 1024 } })));
  await tried("toolRunner stream", async () => {
    for await (const part of ai.beta.messages.toolRunner({ ...call, tools: [tool], stream: true })) for await (const _ of part) void _;
  });
  await tried("toolRunner image", async () => {
    const shown = betaZodTool({ name: "look", description: "Look", inputSchema: z.object({ at: z.string() }), run: () => [{ type: "image", source: { type: "base64", media_type: "image/png", data: PNG } }] });
    await ai.beta.messages.toolRunner({ ...call, tools: [shown] });
  });
  await tried("parse", () => ai.beta.messages.parse({ ...call, output_config: { format: betaZodOutputFormat(Report) } }));
  await tried("output_format", () => ai.beta.messages.parse({ ...call, output_format: betaZodOutputFormat(Report) }));
  await tried("stream", async () => {
    const last = await ai.messages.stream({ ...call, thinking: { type: "adaptive" }, output_config: { effort: "medium" } }).finalMessage();
    await ai.messages.create({ ...call, messages: [...call.messages, { role: "assistant", content: last.content }, { role: "user", content: "And then?" }] });
  });
});

await whole("ai", async () => {
  const ai = await load("ai");
  const { createOpenAI } = await load("@ai-sdk/openai");
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const { createAnthropic } = await load("@ai-sdk/anthropic");
  const { createOpenRouter } = await load("@openrouter/ai-sdk-provider");
  const openai = (name) => createOpenAI({ baseURL: url(name), apiKey: "none" });
  const router = createOpenRouter({ baseURL: url("ai-sdk-openrouter"), apiKey: "none" });
  const like = createOpenAICompatible({ name: "proxy", baseURL: url("ai-sdk-compatible"), apiKey: "none", includeUsage: true, supportsStructuredOutputs: true });
  const models = {
    "ai-sdk-openai-chat": openai("ai-sdk-openai-chat").chat("openai/gpt-4o-mini"),
    "ai-sdk-openai-chat reasoning": openai("ai-sdk-openai-chat").chat("o4-mini"),
    "ai-sdk-openai-responses": openai("ai-sdk-openai-responses").responses("openai/gpt-4o-mini"),
    "ai-sdk-openai-responses reasoning": openai("ai-sdk-openai-responses").responses("gpt-5-mini"),
    "ai-sdk-openrouter": router("anthropic/claude-sonnet-4"),
    "ai-sdk-openrouter usage": router("anthropic/claude-sonnet-4", { usage: { include: true }, reasoning: { effort: "low" } }),
    "ai-sdk-openrouter more": router("openai/gpt-4o-mini", { models: ["openai/gpt-4o"], user: "u1", parallelToolCalls: false, extraBody: { transforms: ["middle-out"] } }),
    "ai-sdk-openrouter provider": router("openai/gpt-4o-mini", { provider: { sort: "price" } }),
    "ai-sdk-openrouter web": router("openai/gpt-4o-mini", { plugins: [{ id: "web" }] }),
    "ai-sdk-compatible": like("openai/gpt-4o-mini"),
    "ai-sdk-anthropic": createAnthropic({ baseURL: url("ai-sdk-anthropic"), apiKey: "none" })("anthropic/claude-sonnet-4"),
    "ai-sdk-anthropic own id": createAnthropic({ baseURL: url("ai-sdk-anthropic"), apiKey: "none" })("claude-sonnet-4-5"),
  };
  const weather = ai.tool({ description: "Weather", inputSchema: City, execute: async () => ({ sky: "rain" }) });
  const ask = "Will it rain?";
  const options = {
    "ai-sdk-openai-chat": { openai: { reasoningEffort: "low", user: "u1", parallelToolCalls: false, store: false, metadata: { a: "b" } } },
    "ai-sdk-openai-responses": { openai: { store: false, include: ["reasoning.encrypted_content"], reasoningSummary: "auto", parallelToolCalls: true, instructions: "Be short." } },
    "ai-sdk-anthropic": { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 }, cacheControl: { type: "ephemeral" }, sendReasoning: true } },
    "ai-sdk-openrouter": { openrouter: { reasoning: { max_tokens: 1024 }, cacheControl: { type: "ephemeral" }, user: "u1" } },
    "ai-sdk-compatible": { proxy: { user: "u1", reasoningEffort: "low", transforms: [] } },
  };
  for (const [name, model] of Object.entries(models)) {
    const kept = options[name.split(" ")[0]];
    await tried(`${name} text`, () => ai.generateText({ model, prompt: ask }));
    await tried(`${name} loop`, () => ai.generateText({ model, system: "Be short.", messages: [{ role: "user", content: ask }], tools: { weather }, stopWhen: ai.stepCountIs(3), temperature: 0.2, maxOutputTokens: 2048 }));
    await tried(`${name} kept`, () => ai.generateText({ model, prompt: ask, tools: { weather }, stopWhen: ai.stepCountIs(3), providerOptions: kept, maxOutputTokens: 4096 }));
    await tried(`${name} stream`, () => ai.streamText({ model, prompt: ask, tools: { weather }, toolChoice: "auto", stopWhen: ai.stepCountIs(3) }).consumeStream());
    await tried(`${name} forced`, () => ai.generateText({ model, prompt: ask, tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } }));
    await tried(`${name} object`, () => ai.generateObject({ model, prompt: ask, schema: Report }));
    await tried(`${name} object stream`, async () => {
      for await (const _ of ai.streamObject({ model, prompt: ask, schema: Report }).partialObjectStream) void _;
    });
    await tried(`${name} parts`, () => ai.generateText({ model, messages: [{ role: "user", content: [{ type: "text", text: "What is it?" }, { type: "image", image: PNG, mediaType: "image/png" }, { type: "file", data: "JVBERi0xLjQK", mediaType: "application/pdf", filename: "a.pdf" }, { type: "image", image: new URL("https://a.example/a.png") }] }] }));
    await tried(`${name} sampling`, () => ai.generateText({ model, prompt: ask, topP: 0.9, topK: 40, presencePenalty: 0.1, frequencyPenalty: 0.1, seed: 7, stopSequences: ["END"] }));
    await tried(`${name} turns`, async () => {
      const first = await ai.generateText({ model, prompt: ask, providerOptions: kept, maxOutputTokens: 4096 });
      await ai.generateText({ model, messages: [{ role: "system", content: "Be short.", providerOptions: { anthropic: { cacheControl: { type: "ephemeral" } }, openrouter: { cacheControl: { type: "ephemeral" } } } }, { role: "user", content: ask }, ...first.response.messages, { role: "user", content: "And then?" }], providerOptions: kept });
    });
  }
  await tried("audio", () => ai.generateText({ model: models["ai-sdk-openai-chat"], messages: [{ role: "user", content: [{ type: "file", data: "UklGRg==", mediaType: "audio/wav" }] }] }));
});

await whole("@openrouter/sdk", async () => {
  const { OpenRouter } = await load("@openrouter/sdk");
  const router = new OpenRouter({ apiKey: "none", serverURL: url("openrouter-sdk") });
  const model = "openai/gpt-4o-mini";
  const messages = [{ role: "system", content: "Be short." }, { role: "user", content: "Will it rain?" }];
  for (const more of [{}, { stream: true }, { tools: [{ type: "function", function: { name: "weather", description: "Weather", parameters: schema } }], toolChoice: "auto" }, { reasoning: { effort: "low" }, maxTokens: 400, temperature: 0.3 }, { responseFormat: { type: "json_schema", jsonSchema: { name: "report", strict: true, schema } } }, { models: ["openai/gpt-4o"], provider: { sort: "price" } }])
    await tried("chat", () => router.chat.send({ chatRequest: { model, messages, ...more }, chatGenerationParams: { model, messages, ...more } }));
  for (const more of [{}, { instructions: "Be short.", tools: [{ type: "function", name: "weather", parameters: schema, strict: null }] }, { stream: true, reasoning: { effort: "low", summary: "auto" } }])
    await tried("responses", () => router.beta.responses.send({ responsesRequest: { model, input: "Will it rain?", ...more }, openResponsesRequest: { model, input: "Will it rain?", ...more } }));
  if (router.callModel) await tried("callModel", async () => void (await router.callModel({ model, input: "Will it rain?" }).getText()));
});

await whole("@openai/agents", async () => {
  const agents = await load("@openai/agents");
  const { default: OpenAI } = await load("openai");
  agents.setTracingDisabled(true);
  const weather = agents.tool({ name: "weather", description: "Weather", parameters: z.object({ city: z.string() }), execute: async () => "rain" });
  for (const [name, Kind] of [["openai-agents-js-chat", agents.OpenAIChatCompletionsModel], ["openai-agents-js-responses", agents.OpenAIResponsesModel]]) {
    const client = new OpenAI({ baseURL: url(name), apiKey: "none" });
    const model = new Kind(client, "openai/gpt-4o-mini");
    const other = new agents.Agent({ name: "Other", instructions: "Help.", model });
    for (const [what, more] of [["loop", { tools: [weather] }], ["handoff", { handoffs: [other] }], ["typed", { outputType: Report }], ["settings", { tools: [weather], modelSettings: { temperature: 0.2, toolChoice: "required", parallelToolCalls: false, store: false, maxTokens: 300, reasoning: { effort: "low" } } }]]) {
      const agent = new agents.Agent({ name: "Weather", instructions: "Be short.", model, ...more });
      await tried(`${name} ${what}`, async () => {
        const first = await agents.run(agent, "Will it rain?", { maxTurns: 3 });
        await agents.run(agent, [...first.history, { role: "user", content: "And then?" }], { maxTurns: 3 });
      });
      await tried(`${name} ${what} stream`, async () => void (await (await agents.run(agent, "Will it rain?", { stream: true, maxTurns: 3 })).completed));
    }
  }
});

await whole("langchain", async () => {
  const { ChatOpenAI, OpenAIEmbeddings } = await load("@langchain/openai");
  const { ChatAnthropic } = await load("@langchain/anthropic");
  const { tool } = await load("@langchain/core/tools");
  const { HumanMessage, SystemMessage, ToolMessage } = await load("@langchain/core/messages");
  const weather = tool(async () => "rain", { name: "weather", description: "Weather", schema: z.object({ city: z.string() }) });
  const open = (name, more) => new ChatOpenAI({ model: "openai/gpt-4o-mini", apiKey: "none", configuration: { baseURL: url(name) }, maxRetries: 0, ...more });
  const models = {
    chat: open("langchain-js-openai-chat", {}),
    streaming: open("langchain-js-openai-chat", { streaming: true, temperature: 0.1, maxTokens: -1, user: "u1" }),
    more: open("langchain-js-openai-chat", { topP: 0.9, n: 1, logprobs: true, topLogprobs: 2, modelKwargs: { transforms: ["middle-out"] }, stop: ["END"] }),
    responses: open("langchain-js-openai-responses", { useResponsesApi: true, zdrEnabled: true }),
    reasoning: open("langchain-js-openai-responses", { useResponsesApi: true, reasoning: { effort: "low", summary: "auto" } }),
    anthropic: new ChatAnthropic({ model: "claude-sonnet-4-5", apiKey: "none", anthropicApiUrl: `${base}/langchain-js-anthropic/api`, maxRetries: 0, maxTokens: 4096 }),
    thinking: new ChatAnthropic({ model: "claude-sonnet-4-5", apiKey: "none", anthropicApiUrl: `${base}/langchain-js-anthropic/api`, maxRetries: 0, maxTokens: 4096, thinking: { type: "enabled", budget_tokens: 1024 } }),
  };
  const asked = [new SystemMessage("Be short."), new HumanMessage("Will it rain?")];
  for (const [name, model] of Object.entries(models)) {
    await tried(`langchain ${name}`, () => model.invoke(asked));
    await tried(`langchain ${name} stream`, async () => {
      for await (const _ of await model.stream(asked)) void _;
    });
    await tried(`langchain ${name} loop`, async () => {
      const bound = model.bindTools([weather]);
      const first = await bound.invoke(asked);
      const done = first.tool_calls.map((call) => new ToolMessage({ content: "rain", tool_call_id: call.id }));
      const second = await bound.invoke([...asked, first, ...done]);
      await bound.invoke([...asked, first, ...done, second, new HumanMessage("And then?")]);
    });
    await tried(`langchain ${name} typed`, () => model.withStructuredOutput(Report).invoke(asked));
    await tried(`langchain ${name} image`, () => model.invoke([new HumanMessage({ content: [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } }] })]));
  }
  await tried("embeddings", () => new OpenAIEmbeddings({ apiKey: "none", configuration: { baseURL: url("langchain-js-openai-chat") } }).embedQuery("rain"));
});
process.exit(0);
