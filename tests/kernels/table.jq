# docs/reference/kernels.md from what agents said: which hook got where, on each kernel.
# Usage: jq -rs --arg suites "SUITE..." -f table.jq STATUS...
# One /status for each kernel, in the order of the columns; the last is the machine's own, whose full release would tell
# of that machine.

def cell: gsub("\\s+"; " ") | gsub("\\|"; "\\|");
def row: "| " + join(" | ") + " |";
# Distinct, in the order of appearance.
def once: reduce .[] as $x ([]; if index([$x]) then . else . + [$x] end);

. as $all
| ([$all[:-1][].kernel] + [$all[-1].kernel | sub("[^0-9.].*"; "")]) as $kernels
| ($suites | split(" ") | map("`\(.)`")) as $ran
| [$all[].probes[].name] | once | sort as $probes
| def probe($status; $name): $status.probes[] | select(.name == $name);
  def told: if .state == "attached" then .how else .state + ": " + .how end;
"# Kernels\n",
"Made by `make test-kernels`; do not edit.\n",
"What each probe gets on the kernels that the tests boot in VMs, and on the kernel of the machine that booted them (the",
"last column). Both VMs passed, each suite when it was run last: \($ran | join(", ")).\n",
"## Probes\n",
(["probe"] + $kernels | row),
(["---"] + [$kernels[] | "---"] | row),
($probes[] as $name
    | ["`\($name)`"] + [$all[] | [probe(.; $name)][0] // {state: "not known"}
        | .state + (if .reason then ": " + .reason else "" end) | cell]
    | row),
"\n## Hooks\n",
"How each program of an eBPF probe is attached, or why it is not. A dash: this version does not try it there.\n",
(["probe", "hook"] + $kernels | row),
(["---", "---"] + [$kernels[] | "---"] | row),
($probes[] as $name
    | ([$all[] | probe(.; $name) | .hooks[].name] | once)[] as $hook
    | ["`\($name)`", "`\($hook)`"] + [$all[] | [probe(.; $name) | .hooks[] | select(.name == $hook) | told]
        | if . == [] then "–" else join(", ") end | cell]
    | row)
