//! The page and the picture.

use std::fmt::Write;

use serde_json::Value;

fn verdict(good: bool) -> &'static str {
    if good { "yes" } else { "**no**" }
}

fn number(figures: &Value, path: &str) -> f64 {
    let found = figures.pointer(path).and_then(Value::as_f64);
    found.unwrap_or(f64::NAN)
}

pub(crate) fn page(figures: &Value) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "# Policy, measured\n\nWritten by `make bench-policy`: Linux {}, {processors} processors. Compare within a run only.\n\n![What a packet costs](policy.svg)\n\n",
        kernel.trim()
    );
    compile(figures, &mut text);
    events(figures, &mut text);
    packets(figures, &mut text);
    memory(figures, &mut text);
    text + METHOD
}

fn compile(figures: &Value, text: &mut String) {
    *text += "## From nothing\n\nObjects as the API gives them to the ruleset of a node with 250 pods.\n\n| | objects, ms | compile, ms | in total, ms | at most | reached | by the clock, ms | memory, MB | at most | reached |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for (part, name, limit) in [
        (
            "large",
            "100,000 pods, 75,000 policies, 25,000 namespaces",
            1000.0,
        ),
        (
            "own-labels",
            "the same, every pod with a label of its own",
            1000.0,
        ),
        (
            "all-selecting",
            "10,000 pods, 10,000 policies that select all, one namespace",
            300.0,
        ),
        (
            "ports",
            "the same, every policy about a port of its own",
            1000.0,
        ),
    ] {
        let of = |what: &str| number(figures, &format!("/compile {part}/{what}"));
        let (total, bytes) = (of("totalMillis"), of("bytes") / 1e6);
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | **{total:.0}** | {limit:.0} | {} | {:.0} | **{bytes:.0}** | 250 | {} |",
            of("objectsMillis"),
            of("compileMillis"),
            verdict(total < limit),
            of("clockMillis"),
            verdict(bytes < 250.0),
        );
    }
    *text += "\n";
}

fn events(figures: &Value, text: &mut String) {
    let of = |path: &str| number(figures, &format!("/events/{path}"));
    let _ = writeln!(
        text,
        "## Events\n\nFrom the event's arrival to the kernel's commit, in milliseconds: {} pods, {} of them here, {} policies, {} rules in the kernel.\n\n| | times | median | p99 | most | at most | reached | left to nft |\n|---|---|---|---|---|---|---|---|",
        of("pods"),
        of("local"),
        of("policies"),
        of("rules")
    );
    for (part, name, limit) in [
        (
            "relabel",
            "one pod of a 10,000-pod selector changes label",
            1.0,
        ),
        ("policy", "a new policy on the 250 pods here", 10.0),
        ("podHere", "a pod comes here", 5.0),
        ("podElsewhere", "a pod comes elsewhere", 5.0),
    ] {
        let (middle, high) = (of(&format!("{part}/p50")), of(&format!("{part}/p99")));
        let _ = writeln!(
            text,
            "| {name} | {} | {middle:.2} | **{high:.2}** | {:.2} | {limit} (p99) | {} | {} |",
            of(&format!("{part}/times")),
            of(&format!("{part}/most")),
            verdict(high < limit),
            of(&format!("{part}/byNft")),
        );
    }
    *text += "\n";
}

const ROADS: [(&str, &str); 9] = [
    ("none", "no rules at all"),
    ("tracking", "connections tracked, by one mark"),
    ("checking", "the same, and each source address checked"),
    ("margay-1", "Margay, 1 policy"),
    ("margay-100", "Margay, 100 policies"),
    ("margay-10000", "Margay, 10,000 policies"),
    ("iptables-1", "as Felix writes iptables, 1 policy"),
    ("iptables-100", "as Felix writes iptables, 100 policies"),
    (
        "iptables-10000",
        "as Felix writes iptables, 10,000 policies",
    ),
];

fn packets(figures: &Value, text: &mut String) {
    *text += "## Packets\n\nFrom pod to pod through the node, as ratio to no rules at all in the same round; every policy selects both pods, and the last one lets them through.\n\n| | open connection, ns | ratio | at most 1.15 | every packet a new one, ns | ratio | at most 1.6 | TCP, Gbit/s | ratio | at least 0.93 |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for (road, name) in ROADS {
        let of = |what: &str| number(figures, &format!("/packets/{road}/{what}"));
        let (established, new, stream) = (of("established"), of("new"), of("stream"));
        let says = |good: bool| match road.starts_with("margay") {
            true => verdict(good),
            false => "",
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | **{established:.2}** | {} | {:.0} | **{new:.2}** | {} | {:.1} | **{stream:.2}** | {} |",
            of("establishedNanos"),
            says(established <= 1.15),
            of("newNanos"),
            says(new <= 1.6),
            of("gigabits"),
            says(stream >= 0.93),
        );
    }
    *text += "\n";
}

fn memory(figures: &Value, text: &mut String) {
    *text += "## Memory\n\n| of 10,000 endpoints elsewhere | MB | at most | reached |\n|---|---|---|---|\n";
    for (part, name, limit) in [
        (
            "agent",
            "in the agent, all at once, with what that takes for the moment",
            10.0,
        ),
        ("kernel", "in the kernel", 2.0),
    ] {
        let bytes = number(figures, &format!("/memory {part}/bytes")) / 1e6;
        let _ = writeln!(
            text,
            "| {name} | {bytes:.1} | {limit} | {} |",
            verdict(bytes < limit)
        );
    }
    let pods = number(figures, "/memory agent/objectsBytes") / 1e6;
    let _ = writeln!(
        text,
        "\nOf the agent's, {pods:.1} MB are there before the pods' addresses are worked off: the pods and the list of them."
    );
    *text += "\n";
}

/// The picture: what a new connection's packet costs, as a ratio.
pub(crate) fn picture(figures: &Value) -> String {
    let mut body = String::new();
    let mut y = 60;
    for (road, name) in ROADS.iter().skip(1) {
        let colour = match road.starts_with("margay") {
            true => "#1f7a4d",
            false => "#b9b4a7",
        };
        for (what, word) in [("established", "open"), ("new", "new")] {
            let ratio = number(figures, &format!("/packets/{road}/{what}"));
            let width = (ratio * 60.0).clamp(1.0, 460.0);
            let _ = write!(
                body,
                "<text x=\"20\" y=\"{0}\">{name}, {word}</text><rect x=\"270\" y=\"{1}\" width=\"{width:.0}\" height=\"13\" fill=\"{colour}\"/><text x=\"{2:.0}\" y=\"{0}\">{ratio:.2}</text>",
                y + 11,
                y,
                276.0 + width
            );
            y += 18;
        }
        y += 6;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {}\" font-family=\"sans-serif\" font-size=\"11\"><rect width=\"800\" height=\"{}\" fill=\"#fff\"/><text x=\"20\" y=\"26\" font-size=\"15\">What a packet costs, as a ratio to no rules at all in the same run</text><text x=\"20\" y=\"44\">shorter is better; bars end at 7.7, the numbers beside them do not</text>{body}</svg>\n",
        y + 10,
        y + 10
    )
}

const METHOD: &str = "\
## How

Compiling: objects of the API's types are made one after the other, which is not timed, and given to
the engine, which is; then the whole ruleset is asked for. Times are those that the one thread runs,
which on an idle machine is what the clock says. Memory is what the process has grown by at
most meanwhile. Afterwards the other compiler, which starts from nothing each time, must agree rule
for rule.

Events: the engine and the netlink writer as the agent has them, and a real table in a network
namespace. `left to nft` says how often a change was not one for netlink.

Packets: three namespaces, pod, node, pod, a set of them for each ruleset, all there at once and
measured by turns. The time is what the sending thread runs, which is the packet's whole way through
the node; 64 bytes of UDP, 20,000 packets a round, three rounds through each of nine sets of
namespaces that are made one after the other (where in memory the kernel puts what a packet meets makes
more of a difference than anything that changes from round to round), the median of the rounds' ratios. Where
every packet is a new connection, each has a port of its own, and the connections are forgotten after
the round; through 10,000 chains it is 100 packets a round. The rules beside ours are loaded by `iptables-nft-restore`, with kernel ipsets: a chain for
each pod and direction, a chain for each policy in it, an ipset for each selector, the answer in a
mark, established connections let through at the top; so does Felix, and kube-router with other names.
TCP is one connection for 1.2 s in each set. Two rows say what the kernel takes for what no policy can do without:
connections that are tracked and pass by their mark, which is one rule; and a lookup of interface and
source address before that, in a hook of its own, which nothing but a lookup for each packet can
replace: a pod that sends with another's address would else be part of the other's connections.

Memory: what the process grows by, and what the kernel accounts to its memory group.
";
