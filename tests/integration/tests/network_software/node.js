// A server that sends, hears and streams; a client that asks it much at once.
const http = require('http'), https = require('https'), fs = require('fs'), crypto = require('crypto');
const [what, folder, host] = process.argv.slice(2);
const cert = fs.readFileSync(folder + '/cert.pem'), key = fs.readFileSync(folder + '/key.pem');

function answer(request, response) {
  const [, name, n] = request.url.split('/');
  if (name === 'bytes') return response.end(Buffer.alloc(Number(n), 'node'));
  if (name === 'chunks') {
    let left = Number(n);
    const more = () => left-- > 0 ? response.write('chunk ' + left + '\n', () => setImmediate(more)) : response.end();
    return more();
  }
  const sum = crypto.createHash('md5');
  let length = 0;
  request.on('data', d => { sum.update(d); length += d.length; });
  request.on('end', () => response.end(length + ' ' + sum.digest('hex') + '\n'));
}

if (what === 'serve') {
  http.createServer(answer).listen(8001);
  https.createServer({ cert, key }, answer).listen(8002);
} else {
  const fetch = (module, agent, port, path, body) => new Promise((done, failed) => {
    const options = { host, port, path, agent, ca: cert, method: body ? 'POST' : 'GET' };
    const request = module.request(options, r => {
      const parts = [];
      r.on('data', d => parts.push(d));
      r.on('end', () => done(Buffer.concat(parts)));
      r.on('error', failed);
    });
    request.on('error', failed);
    request.end(body);
  });
  const many = async (name, module, agent, port, count) => {
    const all = await Promise.all(Array.from({ length: count }, (_, n) => fetch(module, agent, port, '/bytes/' + n * 10)));
    console.log(name, count, all.every((b, n) => b.length === n * 10));
  };
  (async () => {
    const kept = new http.Agent({ keepAlive: true, maxSockets: 20 });
    await many('kept', http, kept, 8001, 500);
    await many('closing', http, new http.Agent({ maxSockets: 50 }), 8001, 300);
    const tls = new https.Agent({ keepAlive: true, maxSockets: 10 });
    await many('tls', https, tls, 8002, 100);
    const chunks = await fetch(http, kept, 8001, '/chunks/500');
    console.log('chunks', chunks.toString().split('\n').length);
    const body = Buffer.alloc(4000000, 'post');
    const said = (await fetch(http, kept, 8001, '/sum', body)).toString().trim();
    console.log('posted', said, said.endsWith(crypto.createHash('md5').update(body).digest('hex')));
    await fetch(http, kept, 8009, '/').catch(e => console.log(e.code));
    kept.destroy(); tls.destroy();
  })();
}
