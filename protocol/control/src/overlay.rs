//! The options of an overlay mount, cut as Linux cuts them.
//!
//! One place for both who read them: the supervisor, which must know the layers to have them served, and the Sentry, which makes the
//! mount. Must never give a meaning to an option that names no layer: what is known and allowed is the Sentry's to say.

/// Cuts at a byte that is not escaped by a backslash.
pub fn split(text: &[u8], at: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for b in text {
        match (escaped, parts.last_mut()) {
            (false, _) if *b == at => parts.push(Vec::new()),
            (_, Some(part)) => part.push(*b),
            _ => {}
        }
        escaped = !escaped && *b == b'\\';
    }
    parts
}

/// Takes the backslashes of escapes out.
pub fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut escaped = false;
    for b in text {
        escaped = !escaped && *b == b'\\';
        if !escaped {
            out.push(*b);
        }
    }
    out
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shown, never changed.
    Lower,
    /// Takes the changes.
    Upper,
    /// Where changes are put together.
    Work,
}

/// The paths of all layers that `data` names, in their order. Names that there cannot be are left out.
pub fn layers(data: &[u8]) -> Vec<(Role, Vec<u8>)> {
    let mut found = Vec::new();
    for option in split(data, b',') {
        let Some(at) = option.iter().position(|b| *b == b'=') else { continue };
        let (key, value) = option.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        let names = if key == b"lowerdir" { split(value, b':') } else { vec![value.to_vec()] };
        let role = match key {
            b"lowerdir" | b"lowerdir+" => Role::Lower,
            b"upperdir" => Role::Upper,
            b"workdir" => Role::Work,
            _ => continue,
        };
        found.extend(names.iter().filter(|n| !n.is_empty()).map(|n| (role, plain(n))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_among_the_options() {
        let data =
            br"volatile,lowerdir=/a:/b\:c:/d\,e,upperdir=/u\\,workdir=/w:x,index=off,lowerdir+=/f:g,=x,lowerdir=";
        let expected: [(Role, &[u8]); 6] = [
            (Role::Lower, b"/a"),
            (Role::Lower, b"/b:c"),
            (Role::Lower, b"/d,e"),
            (Role::Upper, br"/u\"),
            (Role::Work, b"/w:x"),
            (Role::Lower, b"/f:g"),
        ];
        assert_eq!(layers(data), expected.map(|(r, n)| (r, n.to_vec())));
        assert_eq!(layers(b"lowerdir=/a::/b"), [(Role::Lower, b"/a".to_vec()), (Role::Lower, b"/b".to_vec())]);
        assert!(layers(b"").is_empty());
    }
}
