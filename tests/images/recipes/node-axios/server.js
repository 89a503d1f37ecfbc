// Asks another server by axios, over TLS, with axios's defaults.
const axios = require("axios");
const { createServer } = require("node:http");

const server = createServer(async (question, answer) => {
  if (question.url === "/slow") {
    for (let number = 0; number < 4; number++) {
      answer.write(`part ${number}\n`);
      await new Promise((then) => setTimeout(then, 1000));
    }
    return answer.end();
  }
  if (question.url === "/") return answer.end("hello\n");
  try {
    const { data } = await axios.get("https://greetings.example/greeting", { timeout: 10000 });
    answer.end(data);
  } catch (error) {
    answer.statusCode = 502;
    answer.end(`axios: ${error.message}\n`);
  }
});
server.listen(3000);
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
