//! What a template may call: Go's builtins, the sprig library and Helm's own functions.
//!
//! Every function is one row of `FUNCTIONS`: its name, the types of its parameters and the code. Arguments are
//! counted and checked before the code runs, as Go does by reflection.
//!
//! A chart must render to the same images on every machine and every day. So whatever asks for the time, for
//! chance, for a network or for a fresh certificate answers with a fixed value (`fixed`, `dates`), `lookup`
//! finds nothing, and `env` and `expandenv` do not exist (as in Helm).

// Every function has the signature of the table, whether or not it can fail.
#![allow(clippy::unnecessary_wraps)]

pub(super) mod data;
pub(super) mod dates;
pub(super) mod dicts;
pub(super) mod encoding;
pub(super) mod fixed;
pub(super) mod lists;
pub(super) mod logic;
pub(super) mod math;
pub(super) mod methods;
pub(super) mod print;
pub(super) mod regex;
pub(super) mod strings;
pub(super) mod urls;

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::template::evaluate::{Evaluated, Fault, Machine};
use super::value::{Map, Value};

/// The code of a function; its arguments are as many and of the types its row says.
pub(super) type Native = fn(&mut Machine, &[Value]) -> Evaluated<Value>;

/// A function templates may call.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// One letter per parameter: `a` any, `b` bool, `f` float64, `i` int, `m` map with any values, `s` string;
    /// `*` after the last one if it may be given any number of times.
    parameters: &'static str,
    pub(super) native: Native,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// How many arguments it needs, and whether it takes more.
    pub(super) fn arity(&self) -> (usize, bool) {
        let variadic = self.parameters.ends_with('*');
        (
            self.parameters.len() - if variadic { 2 } else { 0 },
            variadic,
        )
    }

    /// The type of an argument.
    pub(super) fn code(&self, index: usize) -> u8 {
        let letters = self.parameters.trim_end_matches('*').as_bytes();
        letters[index.min(letters.len() - 1)]
    }

    /// Whether it leaves arguments unevaluated.
    pub(super) fn is_short_circuit(&self) -> bool {
        matches!(self.name, "and" | "or")
    }
}

/// The function of a name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Function>> = OnceLock::new();
    BY_NAME
        .get_or_init(|| {
            FUNCTIONS
                .iter()
                .map(|function| (function.name, function))
                .collect()
        })
        .get(name)
        .copied()
}

/// How many functions there are.
#[cfg(test)]
pub(super) fn count() -> usize {
    FUNCTIONS.len()
}

/// The name of one of them.
#[cfg(test)]
pub(super) fn name_of(index: usize) -> &'static str {
    FUNCTIONS[index].name
}

/// Checks an argument against the type of its parameter.
pub(super) fn check(value: Value, code: u8) -> Evaluated<Value> {
    let (fits, expected) = match code {
        b's' => (matches!(value, Value::Text(_)), "string"),
        b'i' => (
            matches!(value, Value::Int(_, super::value::IntKind::Int)),
            "int",
        ),
        b'f' => (matches!(value, Value::Float(_)), "float64"),
        b'b' => (matches!(value, Value::Bool(_)), "bool"),
        b'm' => match value {
            Value::Null => return Ok(Value::map(BTreeMap::new())),
            Value::Map(ref map) => (
                map.kind() != super::value::MapKind::Texts,
                "map[string]interface {}",
            ),
            _ => (false, "map[string]interface {}"),
        },
        _ => return Ok(value.plain()),
    };
    if fits {
        return Ok(value);
    }
    Err(match value {
        Value::Null => Fault::new(format!("invalid value; expected {expected}")),
        Value::NilElement => Fault::new(format!(
            "wrong type for value; expected {expected}; got interface {{}}"
        )),
        _ => Fault::new(format!(
            "wrong type for value; expected {expected}; got {}",
            value.type_name()
        )),
    })
}

/// An argument its row declares as `s`.
pub(super) fn str_at(arguments: &[Value], index: usize) -> &str {
    match &arguments[index] {
        Value::Text(text) => text,
        _ => "",
    }
}

/// An argument its row declares as `i`.
pub(super) fn int_at(arguments: &[Value], index: usize) -> i64 {
    match &arguments[index] {
        Value::Int(number, _) => *number,
        _ => 0,
    }
}

/// An argument its row declares as `m`.
pub(super) fn map_at(arguments: &[Value], index: usize) -> &Map {
    match &arguments[index] {
        Value::Map(map) => map,
        _ => unreachable!("arguments of type m are checked to be maps"),
    }
}

const fn row(name: &'static str, parameters: &'static str, native: Native) -> Function {
    Function {
        name,
        parameters,
        native,
    }
}

/// Everything a template may call.
static FUNCTIONS: &[Function] = &[
    // Go's own.
    row("and", "aa*", logic::last),
    row("or", "aa*", logic::last),
    row("not", "a", logic::not),
    row("eq", "aa*", logic::eq),
    row("ne", "aa", logic::ne),
    row("lt", "aa", logic::lt),
    row("le", "aa", logic::le),
    row("gt", "aa", logic::gt),
    row("ge", "aa", logic::ge),
    row("len", "a", lists::len),
    row("index", "aa*", lists::index),
    row("print", "a*", strings::print),
    row("printf", "sa*", strings::printf),
    row("println", "a*", strings::println),
    row("html", "a*", strings::html),
    row("js", "a*", strings::js),
    row("urlquery", "a*", urls::urlquery),
    row("call", "aa*", logic::call),
    // Helm's own.
    row("include", "sa", logic::include),
    row("tpl", "sa", logic::tpl),
    row("required", "sa", logic::required),
    row("fail", "s", logic::fail),
    row("lookup", "ssss", logic::lookup),
    row("toYaml", "a", data::to_yaml),
    row("mustToYaml", "a", data::must_to_yaml),
    row("toYamlPretty", "a", data::to_yaml_pretty),
    row("fromYaml", "s", data::from_yaml),
    row("fromYamlArray", "s", data::from_yaml_array),
    row("toJson", "a", data::to_json),
    row("mustToJson", "a", data::must_to_json),
    row("toPrettyJson", "a", data::to_pretty_json),
    row("mustToPrettyJson", "a", data::must_to_pretty_json),
    row("toRawJson", "a", data::to_raw_json),
    row("mustToRawJson", "a", data::to_raw_json),
    row("fromJson", "s", data::from_json),
    row("mustFromJson", "s", data::must_from_json),
    row("fromJsonArray", "s", data::from_json_array),
    row("toToml", "a", data::to_toml),
    row("mustToToml", "a", data::must_to_toml),
    row("fromToml", "s", data::from_toml),
    row("getHostByName", "s", fixed::empty_text),
    // Strings.
    row("hello", "", strings::hello),
    row("abbrev", "is", strings::abbrev),
    row("abbrevboth", "iis", strings::abbrev_both),
    row("trunc", "is", strings::trunc),
    row("trim", "s", strings::trim),
    row("upper", "s", strings::upper),
    row("lower", "s", strings::lower),
    row("title", "s", strings::title),
    row("untitle", "s", strings::untitle),
    row("substr", "iis", strings::substr),
    row("repeat", "is", strings::repeat),
    row("trimall", "ss", strings::trim_all),
    row("trimAll", "ss", strings::trim_all),
    row("trimSuffix", "ss", strings::trim_suffix),
    row("trimPrefix", "ss", strings::trim_prefix),
    row("nospace", "s", strings::nospace),
    row("initials", "s", strings::initials),
    row("randAlphaNum", "i", fixed::rand_text),
    row("randAlpha", "i", fixed::rand_text),
    row("randAscii", "i", fixed::rand_text),
    row("randNumeric", "i", fixed::rand_digits),
    row("randBytes", "i", fixed::rand_bytes),
    row("swapcase", "s", strings::swapcase),
    row("shuffle", "s", strings::same),
    row("snakecase", "s", strings::snakecase),
    row("camelcase", "s", strings::camelcase),
    row("kebabcase", "s", strings::kebabcase),
    row("wrap", "is", strings::wrap),
    row("wrapWith", "iss", strings::wrap_with),
    row("contains", "ss", strings::contains),
    row("hasPrefix", "ss", strings::has_prefix),
    row("hasSuffix", "ss", strings::has_suffix),
    row("quote", "a*", strings::quote),
    row("squote", "a*", strings::squote),
    row("cat", "a*", strings::cat),
    row("indent", "is", strings::indent),
    row("nindent", "is", strings::nindent),
    row("replace", "sss", strings::replace),
    row("plural", "ssi", strings::plural),
    row("sha1sum", "s", encoding::sha1sum),
    row("sha256sum", "s", encoding::sha256sum),
    row("sha512sum", "s", encoding::sha512sum),
    row("adler32sum", "s", encoding::adler32sum),
    row("toString", "a", strings::to_string),
    row("toStrings", "a", strings::to_strings),
    row("split", "ss", strings::split),
    row("splitList", "ss", strings::split_list),
    row("splitn", "sis", strings::splitn),
    row("join", "sa", strings::join),
    row("sortAlpha", "a", strings::sort_alpha),
    // Numbers.
    row("atoi", "s", math::atoi),
    row("int64", "a", math::int64),
    row("int", "a", math::int),
    row("float64", "a", math::float64),
    row("seq", "i*", math::seq),
    row("toDecimal", "a", math::to_decimal),
    row("until", "i", math::until),
    row("untilStep", "iii", math::until_step),
    row("add1", "a", math::add1),
    row("add", "a*", math::add),
    row("sub", "aa", math::sub),
    row("div", "aa", math::div),
    row("mod", "aa", math::modulo),
    row("mul", "aa*", math::mul),
    row("randInt", "ii", fixed::rand_int),
    row("add1f", "a", math::add1f),
    row("addf", "a*", math::addf),
    row("subf", "aa*", math::subf),
    row("divf", "aa*", math::divf),
    row("mulf", "aa*", math::mulf),
    row("biggest", "aa*", math::max),
    row("max", "aa*", math::max),
    row("min", "aa*", math::min),
    row("maxf", "aa*", math::maxf),
    row("minf", "aa*", math::minf),
    row("ceil", "a", math::ceil),
    row("floor", "a", math::floor),
    row("round", "aif*", math::round),
    // Defaults and reflection.
    row("default", "aa*", logic::default),
    row("empty", "a", logic::empty),
    row("coalesce", "a*", logic::coalesce),
    row("all", "a*", logic::all),
    row("any", "a*", logic::any),
    row("compact", "a", lists::compact),
    row("mustCompact", "a", lists::compact),
    row("ternary", "aab", logic::ternary),
    row("deepCopy", "a", dicts::deep_copy),
    row("mustDeepCopy", "a", dicts::deep_copy),
    row("typeOf", "a", logic::type_of),
    row("typeIs", "sa", logic::type_is),
    row("typeIsLike", "sa", logic::type_is_like),
    row("kindOf", "a", logic::kind_of),
    row("kindIs", "sa", logic::kind_is),
    row("deepEqual", "aa", logic::deep_equal),
    // Paths.
    row("base", "s", urls::base),
    row("dir", "s", urls::dir),
    row("clean", "s", urls::clean),
    row("ext", "s", urls::ext),
    row("isAbs", "s", urls::is_abs),
    row("osBase", "s", urls::base),
    row("osDir", "s", urls::dir),
    row("osClean", "s", urls::clean),
    row("osExt", "s", urls::ext),
    row("osIsAbs", "s", urls::is_abs),
    row("urlParse", "s", urls::url_parse),
    row("urlJoin", "m", urls::url_join),
    // Encodings.
    row("b64enc", "s", encoding::b64enc),
    row("b64dec", "s", encoding::b64dec),
    row("b32enc", "s", encoding::b32enc),
    row("b32dec", "s", encoding::b32dec),
    // Dictionaries.
    row("dict", "a*", dicts::dict),
    row("get", "ms", dicts::get),
    row("set", "msa", dicts::set),
    row("unset", "ms", dicts::unset),
    row("hasKey", "ms", dicts::has_key),
    row("pluck", "sm*", dicts::pluck),
    row("keys", "m*", dicts::keys),
    row("pick", "ms*", dicts::pick),
    row("omit", "ms*", dicts::omit),
    row("merge", "mm*", dicts::merge),
    row("mustMerge", "mm*", dicts::merge),
    row("mergeOverwrite", "mm*", dicts::merge_overwrite),
    row("mustMergeOverwrite", "mm*", dicts::merge_overwrite),
    row("values", "m", dicts::values),
    row("dig", "a*", dicts::dig),
    // Lists.
    row("list", "a*", lists::list),
    row("tuple", "a*", lists::list),
    row("append", "aa", lists::append),
    row("push", "aa", lists::append),
    row("mustAppend", "aa", lists::append),
    row("mustPush", "aa", lists::append),
    row("prepend", "aa", lists::prepend),
    row("mustPrepend", "aa", lists::prepend),
    row("first", "a", lists::first),
    row("mustFirst", "a", lists::first),
    row("rest", "a", lists::rest),
    row("mustRest", "a", lists::rest),
    row("last", "a", lists::last),
    row("mustLast", "a", lists::last),
    row("initial", "a", lists::initial),
    row("mustInitial", "a", lists::initial),
    row("reverse", "a", lists::reverse),
    row("mustReverse", "a", lists::reverse),
    row("uniq", "a", lists::uniq),
    row("mustUniq", "a", lists::uniq),
    row("without", "aa*", lists::without),
    row("mustWithout", "aa*", lists::without),
    row("has", "aa", lists::has),
    row("mustHas", "aa", lists::has),
    row("slice", "aa*", lists::slice),
    row("mustSlice", "aa*", lists::slice),
    row("concat", "a*", lists::concat),
    row("chunk", "ia", lists::chunk),
    row("mustChunk", "ia", lists::chunk),
    // Keys, certificates, chance: fixed.
    row("bcrypt", "s", fixed::bcrypt),
    row("htpasswd", "ss", fixed::htpasswd),
    row("genPrivateKey", "s", fixed::private_key),
    row("derivePassword", "issss", fixed::derive_password),
    row("buildCustomCert", "ss", fixed::certificate),
    row("genCA", "si", fixed::certificate),
    row("genCAWithKey", "sis", fixed::certificate),
    row("genSelfSignedCert", "saai", fixed::certificate),
    row("genSelfSignedCertWithKey", "saais", fixed::certificate),
    row("genSignedCert", "saaia", fixed::certificate),
    row("genSignedCertWithKey", "saaias", fixed::certificate),
    row("encryptAES", "ss", fixed::empty_text),
    row("decryptAES", "ss", fixed::empty_text),
    row("uuidv4", "", fixed::uuid),
    // Versions.
    row("semver", "s", logic::semver),
    row("semverCompare", "ss", logic::semver_compare),
    // Regular expressions.
    row("regexMatch", "ss", regex::is_match),
    row("mustRegexMatch", "ss", regex::must_match),
    row("regexFindAll", "ssi", regex::find_all),
    row("mustRegexFindAll", "ssi", regex::find_all),
    row("regexFind", "ss", regex::find),
    row("mustRegexFind", "ss", regex::find),
    row("regexReplaceAll", "sss", regex::replace_all),
    row("mustRegexReplaceAll", "sss", regex::replace_all),
    row("regexReplaceAllLiteral", "sss", regex::replace_all_literal),
    row(
        "mustRegexReplaceAllLiteral",
        "sss",
        regex::replace_all_literal,
    ),
    row("regexSplit", "ssi", regex::split),
    row("mustRegexSplit", "ssi", regex::split),
    row("regexQuoteMeta", "s", regex::quote_meta),
    // Times: the clock stands still.
    row("now", "", dates::now),
    row("ago", "a", dates::ago),
    row("date", "sa", dates::date),
    row("dateInZone", "sas", dates::date_in_zone),
    row("date_in_zone", "sas", dates::date_in_zone),
    row("dateModify", "sa", dates::date_modify),
    row("date_modify", "sa", dates::date_modify),
    row("mustDateModify", "sa", dates::must_date_modify),
    row("must_date_modify", "sa", dates::must_date_modify),
    row("duration", "a", dates::duration),
    row("durationRound", "a", dates::duration_round),
    row("htmlDate", "a", dates::html_date),
    row("htmlDateInZone", "as", dates::html_date),
    row("toDate", "ss", dates::to_date),
    row("mustToDate", "ss", dates::must_to_date),
    row("unixEpoch", "a", dates::unix_epoch),
    row("mustToDuration", "a", dates::must_to_duration),
    row("durationSeconds", "a", dates::duration_seconds),
    row("durationMilliseconds", "a", dates::duration_milliseconds),
    row("durationMicroseconds", "a", dates::duration_microseconds),
    row("durationNanoseconds", "a", dates::duration_nanoseconds),
    row("durationMinutes", "a", dates::duration_minutes),
    row("durationHours", "a", dates::duration_hours),
    row("durationDays", "a", dates::duration_days),
    row("durationWeeks", "a", dates::duration_weeks),
    row("durationRoundTo", "aa", dates::duration_round_to),
    row("durationTruncateTo", "aa", dates::duration_truncate_to),
];
