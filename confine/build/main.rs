//! The policy compiler: every policies/NAME.json becomes a compiled filter and a table of its rules, embedded in the
//! crate. A name that is unknown, a reason that is missing or a rule that contradicts itself fails the build.
//!
//! Format of a file (policies/README.md has it for authors):
//! `{"comment": WHY, "rules": [{"syscall": NAME, "comment": WHY, "args": [{"index": 0, "op": "eq", "value": "A|B",
//! "mask": "C", "type": "dword", "comment": WHY}]}]}`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a build script reports by panicking

mod calls;
mod constants;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    comment: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    syscall: String,
    comment: String,
    #[serde(default)]
    args: Vec<Arg>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arg {
    index: u8,
    op: String,
    value: Value,
    mask: Option<Value>,
    #[serde(rename = "type", default = "dword")]
    width: String,
    comment: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Expression(String),
}

fn dword() -> String {
    "dword".into()
}

fn main() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../policies");
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rerun-if-changed=build");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("policies/").map(|e| e.expect("policies/").path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut out = String::from("&[\n");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.file_stem().unwrap().to_str().expect("policy file names are UTF-8").to_owned();
        match policy(&name, &std::fs::read_to_string(&file).expect("readable")) {
            Ok(text) => out.push_str(&text),
            Err(e) => panic!("policies/{name}.json: {e}"),
        }
    }
    out.push_str("]\n");
    let to = Path::new(&std::env::var("OUT_DIR").unwrap()).join("policies.rs");
    std::fs::write(to, out).expect("OUT_DIR is writable");
}

fn policy(name: &str, text: &str) -> Result<String, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    reason(&file.comment, "the policy")?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional = std::collections::BTreeSet::new();
    let mut table = String::new();
    for rule in &file.rules {
        let what = format!("rule for {}", rule.syscall);
        reason(&rule.comment, &what)?;
        let number = lookup(calls::CALLS, &rule.syscall).ok_or(format!("unknown system call {}", rule.syscall))?;
        let mut conditions = Vec::new();
        let mut args = String::new();
        for arg in &rule.args {
            reason(&arg.comment, &format!("{what}, argument {}", arg.index))?;
            let (condition, line) = condition(arg).map_err(|e| format!("{what}: {e}"))?;
            conditions.push(condition);
            args.push_str(&line);
        }
        let chain = rules.entry(number).or_default();
        if unconditional.contains(&number) || (conditions.is_empty() && !chain.is_empty()) {
            return Err(format!("{what}: allowed without conditions and named again"));
        }
        if conditions.is_empty() {
            unconditional.insert(number);
        } else {
            chain.push(SeccompRule::new(conditions).map_err(|e| format!("{what}: {e}"))?);
        }
        writeln!(
            table,
            "        Rule {{ call: {:?}, number: {number}, comment: {:?}, args: &[{args}] }},",
            rule.syscall, rule.comment
        )
        .unwrap();
    }
    let arch =
        TargetArch::try_from(std::env::var("CARGO_CFG_TARGET_ARCH").unwrap().as_str()).map_err(|e| e.to_string())?;
    let filter =
        SeccompFilter::new(rules.into_iter().collect(), SeccompAction::KillProcess, SeccompAction::Allow, arch)
            .map_err(|e| e.to_string())?;
    let program: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
    let mut out = String::new();
    writeln!(out, "Policy {{ name: {name:?}, comment: {:?}, rules: &[\n{table}    ], program: &[", file.comment)
        .unwrap();
    for i in program {
        writeln!(out, "    op({:#x}, {}, {}, {:#x}),", i.code, i.jt, i.jf, i.k).unwrap();
    }
    out.push_str("] },\n");
    Ok(out)
}

fn reason(comment: &str, what: &str) -> Result<(), String> {
    match comment.trim().len() {
        0 => Err(format!("{what} gives no reason")),
        _ => Ok(()),
    }
}

fn condition(arg: &Arg) -> Result<(SeccompCondition, String), String> {
    let value = evaluate(&arg.value)?;
    let mask = arg.mask.as_ref().map(evaluate).transpose()?;
    let (op, word) = match (arg.op.as_str(), mask) {
        ("eq", None) => (SeccompCmpOp::Eq, "Eq"),
        ("ne", None) => (SeccompCmpOp::Ne, "Ne"),
        ("lt", None) => (SeccompCmpOp::Lt, "Lt"),
        ("le", None) => (SeccompCmpOp::Le, "Le"),
        ("gt", None) => (SeccompCmpOp::Gt, "Gt"),
        ("ge", None) => (SeccompCmpOp::Ge, "Ge"),
        ("masked_eq", Some(mask)) => {
            if value & !mask != 0 {
                return Err("a masked value has bits outside its mask: it can never match".into());
            }
            (SeccompCmpOp::MaskedEq(mask), "MaskedEq")
        }
        ("masked_eq", None) => return Err("masked_eq needs a mask".into()),
        (op, Some(_)) => return Err(format!("{op} takes no mask")),
        (op, None) => return Err(format!("unknown operator {op}")),
    };
    let (width, qword) = match arg.width.as_str() {
        "dword" => (SeccompCmpArgLen::Dword, false),
        "qword" => (SeccompCmpArgLen::Qword, true),
        other => return Err(format!("unknown type {other}")),
    };
    let cut = |v: u64| if qword { v } else { v & 0xffff_ffff };
    let line = format!(
        "Arg {{ index: {}, op: Op::{word}, value: {:#x}, mask: {:#x}, qword: {qword}, comment: {:?} }}, ",
        arg.index,
        cut(value),
        cut(mask.unwrap_or(u64::MAX)),
        arg.comment
    );
    let op = match op {
        SeccompCmpOp::MaskedEq(mask) => SeccompCmpOp::MaskedEq(cut(mask)),
        op => op,
    };
    let condition = SeccompCondition::new(arg.index, width, op, cut(value)).map_err(|e| e.to_string())?;
    Ok((condition, line))
}

/// `A|B|0x10`, `~(A|B)` or a number.
fn evaluate(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::Number(n) => return Ok(*n),
        Value::Expression(text) => text.trim(),
    };
    if let Some(inner) = text.strip_prefix('~') {
        let inner = inner.trim().trim_start_matches('(').trim_end_matches(')');
        return Ok(!evaluate(&Value::Expression(inner.to_owned()))?);
    }
    let mut all = 0;
    for word in text.split('|').map(str::trim) {
        all |= match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).map_err(|e| format!("{word}: {e}"))?,
            None => match word.parse::<u64>() {
                Ok(n) => n,
                Err(_) => lookup(constants::CONSTANTS, word).ok_or(format!("unknown constant {word}"))?,
            },
        };
    }
    Ok(all)
}

fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}
