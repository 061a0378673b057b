"""Short families: pictures, people, words and sounds."""

from react_data import words
from react_data.family import Maker, Pair, family, pascal, slug


@family("avatar", short=True)
def avatar(m: Maker) -> Pair:
    person, size = m.pick(words.PEOPLE), m.pick((24, 32, 40, 48, 56, 64, 80, 96))
    first = person.split()[0]
    letters = "".join(part[0] for part in person.split())
    wish = m.pick(("any", "name"))
    label = "<span .name>{name}</span>" if wish == "name" else ""
    image = '<img src="/people/$slug.jpg" alt={name} width={$size} />'
    closed = (
        f"<div .root>{image}{label}</div>",
        f"<figure .root>{image}<figcaption>{{name}}</figcaption></figure>",
        f'<a .root href="/people/$slug">{image}{label}</a>',
    )
    plain = (
        f'<div .root style={{{{ width: $size }}}}><b aria-hidden="true">$letters</b>{label}</div>',
        f"<span .root title={{name}} style={{{{ width: $size }}}}>$letters{label}</span>",
        f'<div .root role="img" aria-label={{name}} style={{{{ height: $size }}}}>{{name[0]}}{label}</div>',
    )
    view = m.view(closed, plain)
    code = m.write(
        pascal(m.pick((first, "user", "")), "avatar"),
        view,
        'name: string = "$person"',
        person=person,
        letters=letters,
        slug=slug(person),
        size=size,
    )
    end = " and the name next to it" if wish == "name" else ""
    return m.pair("avatar", f"of {person}, {size} px{end}", code, person, str(size))


@family("image", short=True)
def image(m: Maker) -> Pair:
    thing = m.pick((*words.ANIMALS, *words.PLANTS, *words.CITIES))
    caption = m.chance(0.5)
    text = m.pick((f"{thing} at dawn", f"{thing} in spring", f"A view of {thing}", f"{thing}, up close"))
    below = "<figcaption>$text</figcaption>" if caption else ""
    tag = m.pick(
        (
            '<img src={src} alt="$text" />',
            '<img .photo src={src} alt="$text" loading="lazy" />',
            f'<img src={{src}} alt="$text" width={{{m.pick((200, 320, 400, 640))}}} />',
        )
    )
    picture = m.pick((
        '<div role="img" aria-label="$text" style={{ backgroundImage: `url($${src})` }}></div>',
        '<object data={src} type="image/jpeg">$text</object>',
    ))  # fmt: skip
    closed = [f"<figure .root>{tag}{below}</figure>"]
    if not caption:
        closed += [f"<div .root>{tag}</div>", f"<a .root href={{src}}>{tag}</a>"]
    view = m.view(closed, (f"<figure .root>{picture}{below}</figure>",))
    code = m.write(
        pascal(thing, m.pick(("image", "photo", "picture"))),
        view,
        'src: string = "/img/$slug.jpg"',
        text=text,
        slug=slug(thing),
    )
    noun = m.pick(("image", "photo", "picture")) + (" with a caption," if caption else "")
    return m.pair(noun.rstrip(","), m.pick((f'described as "{text}"', f'showing "{text}"')), code)


@family("media_player", short=True)
def media_player(m: Maker) -> Pair:
    title = m.pick((*words.SONGS, *words.TITLES))
    kind = m.pick(("video", "audio", "audio"))
    ending = "mp4" if kind == "video" else "mp3"
    view = m.view(
        ("<figure .root><$kind controls src={src} /><figcaption>$title</figcaption></figure>",
         "<$kind .root controls><source src={src} />$title</$kind>",
         "<div .root><h2>$title</h2><$kind controls src={src} /></div>"),
        ("<$kind .root controls src={src}>$title</$kind>",
         "<section .root><h3>$title</h3><$kind controls src={src}></$kind></section>",
         "<figure .root><figcaption>$title</figcaption><$kind controls src={src}></$kind></figure>"),
    )  # fmt: skip
    code = m.write(pascal(title, kind), view, f'src: string = "/media/{slug(title)}.{ending}"', kind=kind, title=title)
    noun = m.pick((f"{kind} player", kind + " embed"))
    return m.pair(noun, m.pick((f'for "{title}"', f'with the title "{title}"')), code, kind)


@family("quote", short=True)
def quote(m: Maker) -> Pair:
    text, person = m.pick(words.QUOTES), m.pick(words.PEOPLE)
    view = m.view(
        ("<blockquote .root><p>{text}</p><hr /><cite>$person</cite></blockquote>",
         "<blockquote .root>{text}<br /><cite>$person</cite></blockquote>",
         '<figure .root><blockquote>{text}</blockquote><img src="/$slug.jpg" alt="$person" /></figure>'),
        ("<blockquote .root><p>{text}</p><cite>$person</cite></blockquote>",
         "<figure .root><blockquote>{text}</blockquote><figcaption>$person</figcaption></figure>",
         "<p .root><q>{text}</q> <em>$person</em></p>"),
    )  # fmt: skip
    name = pascal(m.pick(("", "daily", person.split()[0])), "quote")
    code = m.write(name, view, 'text: string = "$text"', text=text, person=person, slug=slug(person))
    noun = m.pick(("quote", "quotation", "block quote"))
    return m.pair(noun, m.pick((f'"{text}" by {person}', f'from {person}: "{text}"')), code, person)


@family("greeting", short=True)
def greeting(m: Maker) -> Pair:
    first = m.pick(words.PEOPLE).split()[0]
    hello = m.pick(("Hello", "Welcome", "Good morning", "Hi", "Welcome back", "Good evening"))
    guest = m.chance(0.5)
    branch = "{name ? <p>$hello, {name}!</p> : <p>$hello, guest!</p>}"
    if guest:
        view = m.view(
            (
                f"<header .root>{branch}<hr /></header>",
                f'<div .root><img src="/wave.svg" alt="" />{branch}</div>',
                "{name}".join(("<p .root><span .wave! />$hello, {name ? <b>", '</b> : "guest"}</p>')),
            ),
            (
                f"<header .root>{branch}</header>",
                '<h1 .root>$hello, {name || "guest"}!</h1>',
                '<p .root>{name ? `$hello, $${name}!` : "$hello, guest!"}</p>',
            ),
        )
    else:
        view = m.view(
            (
                "<h1 .root>$hello,<br />{name}!</h1>",
                "<header .root><h1>$hello, {name}!</h1><hr /></header>",
                '<p .root><img src="/wave.svg" alt="" />$hello, {name}!</p>',
            ),
            (
                "<h1 .root>$hello, {name}!</h1>",
                "<p .root>$hello, <strong>{name}</strong>!</p>",
                "<header .root><h2>$hello</h2><p>{name}</p></header>",
            ),
        )
    code = m.write(
        pascal(hello, m.pick(("", "banner", "message"))), view, 'name: string = "$first"', first=first, hello=hello
    )
    noun = m.pick(("greeting", "welcome line"))
    end = ", or guest without a name" if guest else ""
    return m.pair(noun, f'saying "{hello}" to {first}{end}', code, first, *(["guest"] if guest else []))
