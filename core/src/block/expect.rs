//! Reading JSON so that whatever is wrong is said in the words of the format: which field, what stands there, what is
//! allowed. On top of serde_json, which streams: nothing is held but what a reader keeps.

use super::BlockError;
use crate::text::echo;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// A step down into a file.
#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Item(usize),
}

/// Where a reader stands, and the first fault it found. After a fault it stays where that is.
#[derive(Default)]
pub(super) struct Place {
    steps: RefCell<Vec<Step>>,
    fault: RefCell<Option<BlockError>>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.borrow().iter().enumerate() {
            match step {
                Step::Field(name) if at == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

impl Place {
    fn within<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.steps.borrow_mut().push(step);
        let value = read()?;
        self.steps.borrow_mut().pop();
        Ok(value)
    }

    /// The name of a field of the object at this place.
    fn field(&self, name: &str) -> String {
        let here = self.to_string();
        if here.is_empty() { name.to_owned() } else { format!("{here}.{name}") }
    }

    fn refuse<E: Error>(&self, field: String, problem: String) -> E {
        self.fault.borrow_mut().get_or_insert(BlockError { field, problem });
        // never shown: the fault is
        E::custom("refused")
    }

    /// The value at this place can't be used.
    pub(super) fn refuse_here<E: Error>(&self, problem: impl Into<String>) -> E {
        let here = self.to_string();
        self.refuse(if here.is_empty() { FILE.into() } else { here }, problem.into())
    }

    /// What is wrong with a file that could not be read to its end.
    pub(super) fn fault(&self, error: &serde_json::Error) -> BlockError {
        if let Some(fault) = self.fault.take() {
            return fault;
        }
        let here = self.to_string();
        let problem = match error.classify() {
            serde_json::error::Category::Eof => format!("the file ends here: {error}"),
            serde_json::error::Category::Io => format!("can't be read on: {error}"),
            _ => format!("no JSON: {error}"),
        };
        BlockError { field: if here.is_empty() { FILE.into() } else { here }, problem: echo(&problem) }
    }
}

/// Stands for a field's name where the file as a whole is the problem.
pub(super) const FILE: &str = "file";

/// A value that is neither a list nor an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Whole(u64),
    Negative(i64),
    Fraction(f64),
    Flag(bool),
    Null,
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "the text `{}`", echo(text)),
            Self::Whole(number) => number.fmt(f),
            Self::Negative(number) => number.fmt(f),
            Self::Fraction(number) => write!(f, "{number:?}"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Null => f.write_str("null"),
        }
    }
}

/// What is expected at a place, and how it is read. What is not expected is refused by name.
pub(super) trait Expect<'de>: Sized {
    type Value;

    fn place(&self) -> &Place;

    /// For people: `a word: 64 lower-case hexadecimal digits`.
    fn wanted(&self) -> String;

    /// A text, number, flag or null; `None` when it is not what is expected.
    fn scalar(&mut self, _: Scalar<'_>) -> Option<Self::Value> {
        None
    }

    fn list<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.place().refuse_here(format!("a list; expected is {}", self.wanted())))
    }

    fn object<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.place().refuse_here(format!("an object; expected is {}", self.wanted())))
    }
}

/// Lets serde read what is expected.
pub(super) struct Reads<E>(pub E);

impl<'de, E: Expect<'de>> Reads<E> {
    fn scalar<R: Error>(mut self, found: Scalar<'_>) -> Result<E::Value, R> {
        self.0
            .scalar(found)
            .ok_or_else(|| self.0.place().refuse_here(format!("{found}; expected is {}", self.0.wanted())))
    }
}

impl<'de, E: Expect<'de>> DeserializeSeed<'de> for Reads<E> {
    type Value = E::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<E::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, E: Expect<'de>> Visitor<'de> for Reads<E> {
    type Value = E::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.wanted())
    }

    fn visit_bool<R: Error>(self, flag: bool) -> Result<E::Value, R> {
        self.scalar(Scalar::Flag(flag))
    }

    fn visit_i64<R: Error>(self, number: i64) -> Result<E::Value, R> {
        self.scalar(u64::try_from(number).map_or(Scalar::Negative(number), Scalar::Whole))
    }

    fn visit_u64<R: Error>(self, number: u64) -> Result<E::Value, R> {
        self.scalar(Scalar::Whole(number))
    }

    fn visit_f64<R: Error>(self, number: f64) -> Result<E::Value, R> {
        self.scalar(Scalar::Fraction(number))
    }

    fn visit_str<R: Error>(self, text: &str) -> Result<E::Value, R> {
        self.scalar(Scalar::Text(text))
    }

    fn visit_unit<R: Error>(self) -> Result<E::Value, R> {
        self.scalar(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<E::Value, A::Error> {
        self.0.list(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<E::Value, A::Error> {
        self.0.object(fields)
    }
}

/// A text, number, flag or null that `read` makes something of.
pub(super) struct Plain<'p, F> {
    pub place: &'p Place,
    pub wanted: &'static str,
    pub read: F,
}

impl<'de, T, F: Fn(Scalar<'_>) -> Option<T>> Expect<'de> for Plain<'_, F> {
    type Value = T;

    fn place(&self) -> &Place {
        self.place
    }

    fn wanted(&self) -> String {
        self.wanted.to_owned()
    }

    fn scalar(&mut self, found: Scalar<'_>) -> Option<T> {
        (self.read)(found)
    }
}

/// An object's fields, each of these exactly once, in any order.
pub(super) struct Fields<'p, A, const N: usize> {
    pub place: &'p Place,
    pub names: [&'static str; N],
    pub access: A,
}

impl<'de, A: MapAccess<'de>, const N: usize> Fields<'_, A, N> {
    /// Hands each field's number in the list of names to `read`, which has to take its value.
    pub(super) fn each(
        mut self,
        mut read: impl FnMut(usize, &mut A) -> Result<(), A::Error>,
    ) -> Result<(), A::Error> {
        let (place, names) = (self.place, self.names);
        let mut seen = [false; N];
        while let Some(number) = self.access.next_key_seed(Name { place, names: &names })? {
            if std::mem::replace(&mut seen[number], true) {
                return Err(place.refuse(place.field(names[number]), "it stands here twice".into()));
            }
            place.within(Step::Field(names[number]), || read(number, &mut self.access))?;
        }
        match seen.iter().position(|seen| !seen) {
            Some(missing) => Err(place.refuse(place.field(names[missing]), "it is missing".into())),
            None => Ok(()),
        }
    }
}

/// A field's name: its number in the list.
struct Name<'p, 'n> {
    place: &'p Place,
    names: &'n [&'static str],
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<R: Error>(self, name: &str) -> Result<usize, R> {
        let known = self.names.iter().position(|known| *known == name);
        known.ok_or_else(|| {
            let problem = format!("an unknown field; known here are {}", self.names.join(", "));
            self.place.refuse(self.place.field(&echo(name)), problem)
        })
    }
}

/// A list of at most so many items, each read by what `item` makes.
pub(super) struct List<'p, F> {
    pub place: &'p Place,
    pub wanted: &'static str,
    pub most: usize,
    pub item: F,
}

impl<'p, 'de, E, F> Expect<'de> for List<'p, F>
where
    E: Expect<'de>,
    F: FnMut(&'p Place, usize) -> E,
{
    type Value = Vec<E::Value>;

    fn place(&self) -> &Place {
        self.place
    }

    fn wanted(&self) -> String {
        format!("a list of {}", self.wanted)
    }

    fn list<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Vec<E::Value>, A::Error> {
        let mut all = vec![];
        let place = self.place;
        loop {
            let number = all.len();
            if number == self.most {
                return match items.next_element::<serde::de::IgnoredAny>()? {
                    Some(_) => {
                        Err(place
                            .refuse_here(format!("more than {number} of them, allowed are {}", self.wanted)))
                    }
                    None => Ok(all),
                };
            }
            let item = (self.item)(place, number);
            let Some(value) = place.within(Step::Item(number), || items.next_element_seed(Reads(item)))?
            else {
                return Ok(all);
            };
            all.push(value);
        }
    }
}
