// Parses LogQL with Grafana's own grammar: reads a JSON list of queries, writes a list of syntax trees.
// A node is {name, text, children}; what is no LogQL has a node named "⚠".
const { parser } = require('@grafana/lezer-logql');

function tree(query, node) {
  const children = [];
  for (let child = node.firstChild; child; child = child.nextSibling) children.push(tree(query, child));
  return { name: node.type.name, text: query.slice(node.from, node.to), children };
}

const queries = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(queries.map((query) => tree(query, parser.parse(query).topNode))));
