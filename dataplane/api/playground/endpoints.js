// What the page knows of each endpoint: one card each. `body` makes the request that the card starts with.
const asked = content => [{ role: "user", content }];
const ENDPOINTS = [
  {
    group: "OpenAI", method: "POST", path: "/v1/chat/completions", streams: "SSE", kind: "completion",
    about: "Chat with a model in OpenAI’s dialect: text, images, tools, structured output, reasoning and log probabilities. " +
      "Any OpenAI client works when its base URL is this gateway’s /v1.",
    body: model => ({ model, messages: asked("Why is the sky blue?"), stream: true, stream_options: { include_usage: true } }),
    sample: `data: {"id":"chatcmpl-…","object":"chat.completion.chunk","model":"…","choices":[{"index":0,"delta":{"content":"Air"}}]}

data: {"id":"chatcmpl-…","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":24}}

data: [DONE]`,
    note: "max_tokens and max_completion_tokens are one setting, lowered to what the gateway allows. A stream that fails ends " +
      "with an error event and without [DONE].",
  },
  {
    group: "OpenAI", method: "POST", path: "/v1/completions", streams: "SSE", kind: "completion",
    about: "Continue a text in OpenAI’s older dialect, with an optional suffix for models that fill in the middle.",
    body: model => ({ model, prompt: "Once upon a time", max_tokens: 64, stream: true, stream_options: { include_usage: true } }),
    sample: `data: {"id":"cmpl-…","object":"text_completion","model":"…","choices":[{"index":0,"text":" there"}]}

data: [DONE]`,
    note: "One prompt at a time, as text.",
  },
  {
    group: "OpenAI", method: "POST", path: "/v1/embeddings", streams: "", kind: "embedding",
    about: "Turn one text or many into vectors, as numbers or as base64.",
    body: model => ({ model, input: ["a quiet lake", "a loud city"], encoding_format: "float" }),
    sample: `{"object":"list","model":"…","data":[{"object":"embedding","index":0,"embedding":[0.013,-0.027]}],
 "usage":{"prompt_tokens":6,"total_tokens":6}}`,
    note: "Needs a model that embeds; one that only chats answers with an error.",
  },
  {
    group: "OpenAI", method: "GET", path: "/v1/models", streams: "", kind: "",
    about: "The models that this key may use, as OpenAI’s clients list them.",
    sample: `{"object":"list","data":[{"id":"llama3.2:latest","object":"model","owned_by":"library"}]}`,
    note: "Exactly what is installed on some backend and granted to the key: nothing else can be seen to exist.",
  },
  {
    group: "OpenAI", method: "GET", path: "/v1/models/{model}", streams: "", kind: "completion",
    about: "One of those models. The path takes the model that is chosen above.",
    sample: `{"id":"llama3.2:latest","object":"model","owned_by":"library"}`,
    note: "A model that is forbidden and one that does not exist get the same reply.",
  },
  {
    group: "Ollama", method: "POST", path: "/api/chat", streams: "NDJSON", kind: "completion",
    about: "Chat in Ollama’s own dialect: one JSON record per line, unless stream is false.",
    body: model => ({ model, messages: asked("Explain tides in three sentences."), options: { temperature: 0.7 } }),
    sample: `{"model":"…","message":{"role":"assistant","content":"The"},"done":false}
{"model":"…","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",
 "prompt_eval_count":14,"eval_count":31}`,
    note: "num_ctx, keep_alive, raw and template belong to the operator. X-Gateway-Ignored names what was left out.",
  },
  {
    group: "Ollama", method: "POST", path: "/api/generate", streams: "NDJSON", kind: "completion",
    about: "One prompt, one answer, in Ollama’s dialect; system, suffix, images and format are understood.",
    body: model => ({ model, prompt: "Write a haiku about queues." }),
    sample: `{"model":"…","response":"Pa","done":false}
{"model":"…","response":"","done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":19}`,
    note: "An empty prompt is refused: to Ollama it would mean loading or unloading the model.",
  },
  {
    group: "Ollama", method: "POST", path: "/api/embed", streams: "", kind: "embedding",
    about: "Vectors for one text or many in Ollama’s dialect.",
    body: model => ({ model, input: ["a quiet lake", "a loud city"] }),
    sample: `{"model":"…","embeddings":[[0.013,-0.027],[0.008,0.031]],"prompt_eval_count":6}`,
    note: "Needs a model that embeds. truncate and dimensions are understood.",
  },
  {
    group: "Ollama", method: "POST", path: "/api/embeddings", streams: "", kind: "embedding",
    about: "The older form of /api/embed: one prompt, one vector.",
    body: model => ({ model, prompt: "a quiet lake" }),
    sample: `{"embedding":[0.013,-0.027]}`,
    note: "Kept for older clients; prefer /api/embed.",
  },
  {
    group: "Ollama", method: "POST", path: "/api/show", streams: "", kind: "completion",
    about: "What a model is and can do: family, size, quantisation, capabilities.",
    body: model => ({ model }),
    sample: `{"details":{"family":"llama","parameter_size":"3.2B","quantization_level":"Q4_K_M"},"capabilities":["completion","tools"]}`,
    note: "Reduced: templates, system prompts and licences stay with the operator.",
  },
  {
    group: "Ollama", method: "GET", path: "/api/tags", streams: "", kind: "",
    about: "The models that this key may use, as Ollama lists them. The model list of this page comes from here.",
    sample: `{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","digest":"…","size":2019393189}]}`,
    note: "The union of all backends, each model once.",
  },
  {
    group: "Ollama", method: "GET", path: "/api/version", streams: "", kind: "",
    about: "The version that Ollama’s clients ask for before they talk.",
    sample: `{"version":"0.13.0"}`,
    note: "It says which protocol is spoken, not which Ollama stands behind the gateway.",
  },
  {
    group: "Refused", method: "POST", path: "/api/pull", streams: "", kind: "completion",
    about: "Management of Ollama (pull, push, create, copy, delete, blobs and their like) is closed to every key. Run it and see.",
    body: model => ({ model }),
    sample: `{"error":"…"}`,
    note: "Always 403, however the path is spelled. Operators manage models on the backends themselves.",
  },
];
