//! The language of Go's `text/template`: lexer, parser and evaluator.
//!
//! `lex` turns a text into tokens, `parse` tokens into trees and `evaluate` runs trees. What a template may call
//! is in [`super::functions`].

pub(super) mod evaluate;
pub(super) mod lex;
pub(super) mod parse;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::rc::Rc;

    use serde_json::Value as Json;

    use super::evaluate::{Evaluated, FaultKind, Machine};
    use super::parse::parse;
    use crate::chart::Limits;
    use crate::chart::value::{IntKind, Object, Value, from_json};

    /// Runs a text as a template.
    fn run(text: &str, data: &Value) -> Result<String, String> {
        let name: Rc<str> = Rc::from("test");
        let templates = parse(&name, &Rc::from(text)).map_err(|error| error.message)?;
        let mut machine = Machine::new(Limits::default());
        machine.define(&templates);
        machine.execute("test", data).map_err(|fault| fault.message)
    }

    fn vectors(path: &str) -> Option<Json> {
        let path = Path::new("../shared/data/helm").join(path);
        let Ok(bytes) = std::fs::read(&path) else {
            println!("skipped: {} is absent", path.display());
            return None;
        };
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_functions_of_sprig_answer_as_its_tests_say() {
        let Some(document) = vectors("sprig-template-vectors.json") else {
            return;
        };
        let mut wrong = Vec::new();
        for case in document["cases"].as_array().unwrap() {
            let template = case["template"].as_str().unwrap();
            let expected = case["expect"].as_str().unwrap();
            // `env` does not exist in Helm; the paths of Windows are not those of charts.
            if template.contains("{{env ") || template.contains("C:\\") {
                continue;
            }
            let found = run(template, &Value::map(BTreeMap::new()));
            let error = case["test"] == "TestSemverCompareErr";
            if (error && found.is_err()) || found.as_deref() == Ok(expected) {
                continue;
            }
            wrong.push(format!(
                "{template}: expected {expected:?}, found {found:?}"
            ));
        }
        assert_eq!(wrong, Vec::<String>::new(), "every vector holds");
    }

    /// A value of the tables; some are written in Go.
    fn go_value(value: &Json) -> Option<Value> {
        let Some(call) = value.get("$call").and_then(Json::as_str) else {
            if value.get("$expr").is_some() {
                let text = value.to_string();
                return Some(if text.contains("Millisecond") {
                    Value::object(Object::Duration(1_500_000_000))
                } else if text.contains("$uint64") || text.contains("maxDurationSeconds") {
                    Value::Int(i64::MAX / 1_000_000_000 + 1, IntKind::Int64)
                } else {
                    Value::Float(-1e300)
                });
            }
            return match value.as_str() {
                Some("$loopMap") => {
                    let map = crate::chart::value::Map::new(BTreeMap::new());
                    map.insert(Rc::from("foo"), Value::text("bar"));
                    map.insert(Rc::from("loop"), Value::Map(map.clone()));
                    Some(Value::Map(map))
                }
                _ => Some(from_json(value)),
            };
        };
        match call {
            "$uint" => Some(Value::Int(2, IntKind::Uint64)),
            "$math.NaN" => Some(Value::Float(f64::NAN)),
            "$math.Inf" => Some(Value::Float(f64::INFINITY)),
            _ => None,
        }
    }

    #[test]
    fn the_functions_of_helm_answer_as_its_tests_say() {
        on_a_large_stack(helm_tables);
    }

    fn helm_tables() {
        let Some(document) = vectors("helm-tables/pkg_engine_funcs_test.go.tables.json") else {
            return;
        };
        let (mut wrong, mut right) = (Vec::new(), 0);
        for table in document["tables"].as_array().unwrap() {
            for case in table["cases"].as_array().into_iter().flatten() {
                let template = case["tpl"].as_str().unwrap();
                let data = go_value(case.get("vars").unwrap_or(&Json::Null)).unwrap();
                // A Go map with keys that are no texts, which no template can make.
                if case["vars"].get("1").is_some() {
                    continue;
                }
                let found = run(template, &data);
                let holds = match case["expect"].as_str() {
                    // What a parser says of malformed TOML is its own.
                    Some(expected) if expected.starts_with("map[Error:toml") => found
                        .as_ref()
                        .is_ok_and(|text| text.starts_with("map[Error:toml: line 1")),
                    Some(expected) => found.as_deref() == Ok(expected),
                    None => found.is_err(),
                };
                if holds {
                    right += 1;
                } else {
                    wrong.push(format!("{template} of {case}: {found:?}"));
                }
            }
        }
        println!("{right} cases hold");
        assert_eq!(wrong, Vec::<String>::new(), "every case holds");
    }

    #[test]
    fn the_language_behaves_as_in_go() {
        let data = serde_json::json!({
            "map": {"b": 2, "a": 1}, "list": ["x", "y"], "empty": {}, "nothing": null, "n": 1_000_000
        });
        for (template, expected) in [
            (
                "{{ range $k, $v := .map }}{{ $k }}={{ $v }};{{ end }}",
                "a=1;b=2;",
            ),
            ("{{ range .empty }}x{{ else }}none{{ end }}", "none"),
            (
                "{{ range $i, $v := .list }}{{ if $i }},{{ end }}{{ $v }}{{ end }}",
                "x,y",
            ),
            (
                "{{ range .list }}{{ if eq . \"y\" }}{{ break }}{{ end }}{{ . }}{{ end }}",
                "x",
            ),
            (
                "{{ range .list }}{{ if eq . \"x\" }}{{ continue }}{{ end }}{{ . }}{{ end }}",
                "y",
            ),
            ("{{ range 3 }}{{ . }}{{ end }}", "012"),
            (
                "{{ with .nothing }}x{{ else with .list }}{{ len . }}{{ end }}",
                "2",
            ),
            ("{{ if .nothing }}a{{ else if .map }}b{{ end }}", "b"),
            (
                "{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}",
                "2",
            ),
            (
                "{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}",
                "1",
            ),
            (
                "{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" 5 }}",
                "<5>",
            ),
            ("{{ block \"b\" .map }}{{ .a }}{{ end }}", "1"),
            ("{{ .missing }}", "<no value>"),
            ("{{ (.missing).deeper }}", "<no value>"),
            ("{{ $m := .missing }}{{ $m.deeper }}", "<no value>"),
            (
                "{{ .n }} {{ int .n }} {{ .map }}",
                "1e+06 1000000 map[a:1 b:2]",
            ),
            ("{{ list 1 nil \"a\" }}", "[1 <nil> a]"),
            ("{{ and .map .list | len }}", "2"),
            ("{{ or .empty .list }}", "[x y]"),
            ("{{ and false (fail \"not evaluated\") }}", "false"),
            (
                "{{ 'a' }} {{ 0x10 }} {{ 1_000 }} {{ 1e3 }}",
                "97 16 1000 1000",
            ),
            ("{{ `raw\\n` }}{{ \"\\u00e9\\x41\" }}", "raw\\n\u{e9}A"),
            ("{{ print 1 2 \"a\" 3 }}", "1 2a3"),
            (
                "{{ $d := dict \"a\" 1 }}{{ $e := $d }}{{ $_ := set $e \"a\" 2 }}{{ $d.a }}",
                "2",
            ),
            (
                "{{ tpl \"{{ .a }}{{ define \\\"q\\\" }}q{{ end }}{{ include \\\"q\\\" . }}\" .map }}",
                "1q",
            ),
            ("{{ len \"\u{e9}\" }}{{ trunc 1 \"\u{e9}\" | len }}", "21"),
            ("{{ \"/w==\" | b64dec | b64enc }}", "/w=="),
            ("{{ not (eq 1 2) }}{{ eq 1 2 1 }}", "truetrue"),
            ("{{ eq .nothing nil }}", "true"),
            ("{{ index .list 1 }}{{ index .map \"a\" }}", "y1"),
        ] {
            assert_eq!(
                run(template, &from_json(&data)).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
    }

    #[test]
    fn errors_of_go_are_errors() {
        let data = serde_json::json!({"nothing": null, "n": 1, "s": "x", "map": {}});
        for (template, message) in [
            (
                "{{ .nothing.deeper }}",
                "nil pointer evaluating interface {}.deeper",
            ),
            (
                "{{ .s.deeper }}",
                "can't evaluate field deeper in type string",
            ),
            ("{{ nosuch . }}", "function \"nosuch\" not defined"),
            ("{{ $x }}", "undefined variable \"$x\""),
            ("{{ if }}{{ end }}", "missing value for if"),
            ("{{ if true }}", "unexpected EOF"),
            ("{{ end }}", "unexpected {{end}}"),
            ("{{ break }}", "{{break}} outside {{range}}"),
            (
                "{{ .n | upper }}",
                "wrong type for value; expected string; got float64",
            ),
            (
                "{{ trunc }}",
                "wrong number of args for trunc: want 2 got 0",
            ),
            (
                "{{ eq 1 \"a\" }}",
                "incompatible types for comparison: int and string",
            ),
            ("{{ range .n }}{{ end }}", "range can't iterate over 1"),
            (
                "{{ template \"nosuch\" }}",
                "template \"nosuch\" not defined",
            ),
            ("{{ fail \"stop\" }}", "stop"),
            ("{{ required \"give it\" .nothing }}", "give it"),
            ("{{ index .map.a \"b\" }}", "index of untyped nil"),
            (
                "{{ \"a\" | \"b\" }}",
                "non executable command in pipeline stage 2",
            ),
        ] {
            let found = run(template, &from_json(&data)).unwrap_err();
            assert!(found.ends_with(message), "{template}: {found}");
        }
    }

    /// Runs a text within small limits.
    fn bounded(text: &str) -> Evaluated<String> {
        let name: Rc<str> = Rc::from("test");
        let templates = parse(&name, &Rc::from(text))
            .map_err(|error| super::evaluate::Fault::new(error.message))?;
        let mut machine = Machine::new(Limits {
            steps: 200_000,
            memory: 4 << 20,
        });
        machine.define(&templates);
        machine.execute("test", &Value::map(BTreeMap::new()))
    }

    /// Runs a test where it has the stack templates run on.
    fn on_a_large_stack(test: fn()) {
        std::thread::Builder::new()
            .stack_size(512 << 20)
            .spawn(test)
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        on_a_large_stack(|| {
            for template in [
                "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}",
                "{{ define \"a\" }}{{ include \"a\" . }}{{ end }}{{ include \"a\" . }}",
                "{{ define \"a\" }}{{ tpl \"{{ include \\\"a\\\" . }}\" . }}{{ end }}{{ include \"a\" . }}",
                "{{ repeat 1000000000 \"a\" }}",
                "{{ until 1000000000 }}",
                "{{ range 9223372036854775807 }}{{ end }}",
                "{{ seq 0 1000000000 }}",
                "{{ $s := \"a\" }}{{ range until 100 }}{{ $s = print $s $s }}{{ end }}",
                "{{ $l := list 1 }}{{ range until 100 }}{{ $l = concat $l $l }}{{ end }}",
                "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d }}",
                "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ deepCopy $d }}",
                "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $e := dict }}{{ $_ := set $e \"d\" $e }}{{ deepEqual $d $e }}",
                "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $e := dict }}{{ $_ := set $e \"d\" $e }}{{ merge $d $e }}",
                "{{ nindent 1000000000 \"a\" }}",
                "{{ printf \"%1000000d\" 1 }}",
                "{{ regexMatch \"(a{1000}){1000}\" (repeat 100000 \"a\") | not | fail }}{{ mustRegexMatch \"(a{1000}){1000}\" \"\" }}",
                "{{ $l := list }}{{ range until 100000 }}{{ $l = list $l }}{{ end }}{{ $l }}",
                "{{ fromYaml \"a: &a [x,x,x,x,x,x,x,x,x]\\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f]\\nh: [*g,*g,*g,*g,*g,*g,*g,*g]\" | toYaml | fail }}",
                "{{ wrapWith 1 (repeat 100000 \"-\") (repeat 100000 \"a\") }}",
                "{{ replace \"\" (repeat 10000 \"b\") (repeat 10000 \"a\") }}",
                "{{ join (repeat 100000 \"a\") (until 10000) }}",
            ] {
                assert!(
                    bounded(template).is_err(),
                    "{template} must not take what it asks for"
                );
            }
            let nested = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
            assert!(
                bounded(&format!("{{{{ {nested} }}}}")).is_err(),
                "parentheses without end are refused"
            );
            let nested = "{{ if true }}".repeat(100_000);
            assert!(
                bounded(&nested).is_err(),
                "conditions without end are refused"
            );
        });
    }

    #[test]
    fn a_limit_is_told_from_a_mistake() {
        on_a_large_stack(|| {
            let fault = bounded("{{ repeat 1000000000 \"a\" }}").unwrap_err();
            assert_eq!(fault.kind, FaultKind::Limit, "the chart asked for too much");
            let fault = bounded("{{ fail \"no\" }}").unwrap_err();
            assert_eq!(fault.kind, FaultKind::Refused, "the chart refused");
        });
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        /// Pieces that make templates which get somewhere.
        fn pieces() -> impl Strategy<Value = String> {
            let piece = prop_oneof![
                Just("{{ ".to_owned()),
                Just(" }}".to_owned()),
                Just("{{- ".to_owned()),
                Just(" -}}".to_owned()),
                Just("if ".to_owned()),
                Just("range ".to_owned()),
                Just("with ".to_owned()),
                Just("end ".to_owned()),
                Just("else ".to_owned()),
                Just("define \"a\" ".to_owned()),
                Just("template \"a\" ".to_owned()),
                Just("include \"a\" ".to_owned()),
                Just("tpl ".to_owned()),
                Just("printf \"%v %d %s %q %5.2f %x\" ".to_owned()),
                Just("dict ".to_owned()),
                Just("list ".to_owned()),
                Just("set ".to_owned()),
                Just("merge ".to_owned()),
                Just("toYaml ".to_owned()),
                Just("fromYaml ".to_owned()),
                Just("toJson ".to_owned()),
                Just("substr ".to_owned()),
                Just("trunc ".to_owned()),
                Just("splitn ".to_owned()),
                Just("slice ".to_owned()),
                Just("index ".to_owned()),
                Just("date ".to_owned()),
                Just("$x := ".to_owned()),
                Just("$x ".to_owned()),
                Just(". ".to_owned()),
                Just(".a ".to_owned()),
                Just("( ".to_owned()),
                Just(") ".to_owned()),
                Just("| ".to_owned()),
                "[0-9]{1,3} ",
                "-?[0-9]{1,3}[.][0-9] ",
                "\"[a-z\u{e9} :#|-]{0,5}\" ",
                ".{0,3}",
            ];
            proptest::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
        }

        proptest! {
            #[test]
            fn no_template_stops_the_evaluator(text in pieces()) {
                let _ = bounded(&text);
            }

            #[test]
            fn no_text_stops_the_parser(text in ".{0,80}") {
                let _ = bounded(&format!("{{{{ {text}"));
                let _ = bounded(&text);
            }

            #[test]
            fn every_function_takes_any_arguments(
                index in 0..super::super::super::functions::count(),
                arguments in proptest::collection::vec(0..14_usize, 0..5),
            ) {
                let values = [
                    "1", "0", "-5", "1.5", "\"\"", "\"text\"", "\"\u{e9}\u{1f600}\"", "nil", "true",
                    "(dict \"a\" 1)", "(list 1 \"b\" nil)", "(now)", "(semver \"1.2.3\")", "99999999999",
                ];
                let name = super::super::super::functions::name_of(index);
                let written: Vec<&str> = arguments.iter().map(|at| values[*at]).collect();
                let _ = bounded(&format!("{{{{ {name} {} }}}}", written.join(" ")));
            }
        }
    }
}
