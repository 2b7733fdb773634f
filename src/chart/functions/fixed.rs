//! What would differ from run to run: chance, keys and certificates, each answered with a fixed value.
//!
//! The values have the form a template expects, so that it can cut, encode and compare them. They are no secrets
//! and open nothing.

use std::rc::Rc;

use super::{int_at, str_at};
use crate::chart::template::evaluate::{Evaluated, Fault, Machine};
use crate::chart::value::{Field, Object, Record, Value};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nZml4ZWQ=\n-----END CERTIFICATE-----\n";
const PRIVATE_KEY: &str =
    "-----BEGIN RSA PRIVATE KEY-----\nZml4ZWQ=\n-----END RSA PRIVATE KEY-----\n";

pub(super) fn empty_text(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(""))
}

fn repeated(machine: &mut Machine, arguments: &[Value], alphabet: &str) -> Evaluated<Value> {
    let count = usize::try_from(int_at(arguments, 0)).unwrap_or(0);
    machine.charge(count)?;
    Ok(Value::text(
        alphabet.chars().cycle().take(count).collect::<String>(),
    ))
}

pub(super) fn rand_text(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    repeated(machine, arguments, "fixed")
}

pub(super) fn rand_digits(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    repeated(machine, arguments, "1234567890")
}

pub(super) fn rand_bytes(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let count = usize::try_from(int_at(arguments, 0)).unwrap_or(0);
    machine.charge(count.saturating_mul(2))?;
    machine.text(super::encoding::base64_encode(&vec![0; count]))
}

pub(super) fn rand_int(_: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    if int_at(arguments, 1) <= int_at(arguments, 0) {
        return Err(Fault::new("invalid argument to Intn"));
    }
    Ok(Value::int(int_at(arguments, 0)))
}

pub(super) fn uuid(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text("00000000-0000-4000-8000-000000000000"))
}

pub(super) fn bcrypt(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(
        "$2a$10$fixedfixedfixedfixedfuGq1zO9lHkJm1hEwI2bX8yP0sT4nVxWa",
    ))
}

pub(super) fn htpasswd(machine: &mut Machine, arguments: &[Value]) -> Evaluated<Value> {
    let user = str_at(arguments, 0);
    if user.contains(':') {
        return machine.text(format!("invalid username: {user}"));
    }
    let Value::Text(hash) = bcrypt(machine, arguments)? else {
        return Ok(Value::Null);
    };
    machine.text(format!("{user}:{hash}"))
}

pub(super) fn private_key(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text(PRIVATE_KEY))
}

pub(super) fn derive_password(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    Ok(Value::text("fixed-password"))
}

pub(super) fn certificate(_: &mut Machine, _: &[Value]) -> Evaluated<Value> {
    let field = |name, text: &str| Field {
        name,
        json: name,
        value: Value::Text(Rc::from(text)),
    };
    Ok(Value::object(Object::Record(Record {
        type_name: "sprig.certificate",
        fields: vec![field("Cert", CERTIFICATE), field("Key", PRIVATE_KEY)],
    })))
}
