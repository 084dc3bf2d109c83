// oauth2-mock-server, whose token endpoint answers what it is told to.
// Prints its issuer when it can be asked. Of its own it answers
//   GET /-/journal   the grant types that have been asked for
//   POST /-/then     a list of { status, headers, body }: what the next token requests come to. A
//                    body that is text is sent as it is, members of another take the place of those
//                    that are meant, and null leaves one out

import http from 'node:http';
import { OAuth2Server } from 'oauth2-mock-server';

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
await server.start(0, '127.0.0.1');
const upstream = server.address().port;

const journal = [];
let answers = [];

const read = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
};

// In front of it, because it can change neither headers nor what is no JSON.
const front = http.createServer(async (request, response) => {
  const body = await read(request);
  if (request.url === '/-/journal') {
    response.end(JSON.stringify(journal));
    return;
  }
  if (request.url === '/-/then') {
    answers = JSON.parse(body);
    response.end();
    return;
  }
  const isToken = request.url === '/token';
  if (isToken) journal.push(new URLSearchParams(body.toString()).get('grant_type'));
  const told = isToken ? answers.shift() : undefined;
  const headers = { ...request.headers };
  const options = { host: '127.0.0.1', port: upstream, path: request.url, method: request.method, headers };
  const asked = http.request(options, async (answer) => {
    let content = await read(answer);
    const extra = { ...answer.headers, ...told?.headers };
    delete extra['content-length'];
    if (typeof told?.body === 'string') {
      content = told.body;
    } else if (told?.body) {
      const members = { ...JSON.parse(content), ...told.body };
      content = JSON.stringify(Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null)));
    }
    response.writeHead(told?.status ?? answer.statusCode, extra);
    response.end(content);
  });
  asked.end(body);
});
front.listen(0, '127.0.0.1', () => {
  server.issuer.url = `http://127.0.0.1:${front.address().port}`;
  console.log(JSON.stringify({ issuer: server.issuer.url }));
});
