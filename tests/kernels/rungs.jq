# Which rung of each ladder held, on which kernel, from what the suite lab_rungs noted.
# Usage: jq -rs --rawfile unreached FILE -f rungs.jq NOTE...   (JSON lines, the kernels in the order of the columns, the machine's own last)
# FILE has a line for each rung that no kernel here can offer: "PROBE MECHANISM PLACE: reason".
#
# Gives {table, faults}: a section of docs/reference/kernels.md, and what is wrong with the ladders or with FILE.

def cell: gsub("\\s+"; " ") | gsub("\\|"; "\\|");
def row: "| " + join(" | ") + " |";
# Distinct, in the order of appearance.
def once: reduce .[] as $x ([]; if index([$x]) then . else . + [$x] end);

. as $notes
| ([$notes[].kernel] | once) as $kernels
# The full release of the machine's own would tell of that machine.
| ($kernels[:-1] + [$kernels[-1] | sub("[^0-9.].*"; "")]) as $columns
| ($unreached | split("\n") | map(select(test("^[^#]*: ")) | capture("^(?<rung>[^:]+): (?<why>.*)$"))) as $excused
| [$notes[] | {probe, hook, rung: .rungs[]}] | once | sort_by(.probe) as $ladders
# By which fewest were taken away where it held; null where it never did.
| def held($of; $kernel): [$notes[]
        | select(.kernel == $kernel and .probe == $of.probe and .hook == $of.hook and .rung == $of.rung) | .without]
    | sort_by(length)[0];
  def told: if . == null then "–" elif . == "" then "held" else "held without `" + . + "`" end;
  def why($of): [$excused[] | select(.rung == $of.probe + " " + $of.rung) | .why][0];
  [$ladders[] as $of | {of: $of, held: [$kernels[] as $kernel | held($of; $kernel)], why: why($of)}] as $rows
| {
    table: ([
        "\n## Rungs\n",
        "Each way to attach a program, best first within a hook, and on which kernel it held: from the start, or after better",
        "ones were taken away (`NETSONDE_WITHOUT`). After each, known drops, resets, datagrams, reads and writes were counted to\nthe last one.\n",
        (["probe", "hook", "rung"] + $columns | row),
        (["---", "---", "---"] + [$columns[] | "---"] | row),
        ($rows[] | ["`\(.of.probe)`", "`\(.of.hook)`", "`\(.of.rung)`"] + [.held[] | told] | map(cell) | row),
        "\nThese held nowhere:\n",
        ($rows[] | select(.why) | "- `\(.of.probe)`, `\(.of.rung)`: \(.why).")
    ] | join("\n")),
    faults: [
        ($rows[] | select((.held | all(. == null)) and .why == null)
            | "\(.of.probe): no kernel attached \(.of.hook) by \(.of.rung)"),
        ($rows[] | select((.held | any(. != null)) and .why != null)
            | "\(.of.probe): \(.of.rung) held, and is listed as one that cannot"),
        ($excused[] | select(.rung as $rung | $ladders | all(.probe + " " + .rung != $rung))
            | "\(.rung) is listed and no ladder has it")
    ]
  }
