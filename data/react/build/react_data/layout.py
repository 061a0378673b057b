"""Short families: the blocks a page is made of."""

from react_data import words
from react_data.family import Maker, Pair, array, family, pascal, slug


@family("card", short=True)
def card(m: Maker) -> Pair:
    title, text = m.pick(words.TITLES), m.pick(words.LINES)
    action = m.chance(0.4)
    end = "<button>$action</button>" if action else ""
    label = m.pick(("Read more", "Open", "Book", "Details", "Join in"))
    tag = m.pick(("div", "article", "section"))
    heading = m.pick(("h2", "h3"))
    view = m.view(
        (f'<{tag} .root><img src="/$slug.jpg" alt="$title" /><{heading}>{{title}}</{heading}>{end}</{tag}>',
         f"<{tag} .root><{heading} .title>{{title}}</{heading}><hr /><p>$text</p>{end}</{tag}>",
         f'<{tag} .root><img .cover src="/$slug.jpg" alt="" /><p>{{title}}</p>{end}</{tag}>'),
        (f"<{tag} .root><{heading} .title>{{title}}</{heading}><p .text>$text</p>{end}</{tag}>",
         f"<{tag} .root><header>{{title}}</header><p>$text</p>{end}</{tag}>",
         f"<{tag} .root><{heading}>{{title}}</{heading}>{end}</{tag}>"),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick((title, "info", "")), "card"),
        view,
        'title: string = "$title"',
        title=title,
        text=text,
        slug=slug(title),
        action=label,
    )
    noun = m.pick(("card", "simple card", "content card"))
    said = m.pick((f'titled "{title}"', f'with the title "{title}"', f'for "{title}"'))
    return m.pair(noun, said + (f' and a "{label}" button' if action else ""), code)


@family("price_tag", short=True)
def price_tag(m: Maker) -> Pair:
    thing, price = m.pick(words.PRODUCTS)
    sale = m.chance(0.35)
    old = f"<del>€{price + m.pick((5, 10, 20))}</del>" if sale else ""
    view = m.view(
        (f'<div .root><img src="/$slug.jpg" alt="$thing" />{old}<b>€{{price}}</b></div>',
         f"<p .root>$thing<br />{old}<strong>€{{price}}</strong></p>",
         f"<div .root><h3>$thing</h3><hr />{old}<span>€{{price}}</span></div>"),
        (f"<p .root>$thing: {old}<strong>€{{price}}</strong></p>",
         f"<div .root><h3>$thing</h3>{old}<p .price>€{{price}}</p></div>",
         f"<data .root value={{price}}>$thing {old}€{{price}}</data>"),
    )  # fmt: skip
    code = m.write(
        pascal(thing, m.pick(("price", "price tag", "offer"))),
        view,
        f"price: number = {price}",
        thing=thing,
        slug=slug(thing),
    )
    noun = "sale price tag with the old price" if sale else m.pick(("price tag", "price label"))
    return m.pair(noun, f'for "{thing}" at {price} euros', code, str(price), *(["del"] if sale else []))


@family("stat_tile", short=True)
def stat_tile(m: Maker) -> Pair:
    label, value = m.pick(words.STATS)
    trend = m.chance(0.4)
    change = m.pick(("+4%", "-2%", "+12%", "+1%", "-9%", "+30%"))
    extra = f"<small>{change}</small>" if trend else ""
    view = m.view(
        (f"<div .root><span .icon! /><b>{{value}}</b><p>$label</p>{extra}</div>",
         f"<p .root>$label<br /><strong>{{value}}</strong>{extra}</p>",
         f"<section .root><h3>$label</h3><hr /><p>{{value}}</p>{extra}</section>"),
        (f"<div .root><p .label>$label</p><p .value>{{value}}</p>{extra}</div>",
         f"<dl .root><dt>$label</dt><dd>{{value}}{extra}</dd></dl>",
         f"<section .root><h3>{{value}}</h3><span>$label</span>{extra}</section>"),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick((label, "")), m.pick(("stat", "tile", "stat tile"))),
        view,
        'value: string = "$value"',
        label=label,
        value=value,
    )
    noun = m.pick(("stat tile", "statistic tile", "number tile"))
    end = f" and a change of {change}" if trend else ""
    return m.pair(noun, f'for "{label}" with {value}{end}', code, value, *([change] if trend else []))


@family("hero", short=True)
def hero(m: Maker) -> Pair:
    title, line, action = m.pick(words.TITLES), m.pick(words.LINES), m.pick(words.ACTIONS[:21])
    button = m.chance(0.5)
    end = '<a href="/start">$action</a>' if button else ""
    view = m.view(
        (f'<header .root><img src="/hero.jpg" alt="" /><h1>{{title}}</h1>{end}</header>',
         f"<header .root><h1>{{title}}</h1><hr /><p>$line</p>{end}</header>",
         f"<section .root><h1>{{title}}</h1><p>$line<br />Come in.</p>{end}</section>"),
        (f"<header .root><h1>{{title}}</h1><p>$line</p>{end}</header>",
         f"<section .root><h1 .title>{{title}}</h1>{end}</section>",
         f"<header .root><p>$line</p><h1>{{title}}</h1>{end}</header>"),
    )  # fmt: skip
    code = m.write(
        m.pick(("Hero", "HeroHeader", "Intro", pascal(title, "hero"))),
        view,
        'title: string = "$title"',
        title=title,
        line=line,
        action=action,
    )
    noun = m.pick(("hero header", "page hero", "hero section"))
    return m.pair(noun, f'with the title "{title}"' + (f' and a "{action}" link' if button else ""), code)


@family("footer", short=True)
def footer(m: Maker) -> Pair:
    brand, year = m.pick(words.BRANDS), m.rng.randint(2015, 2026)
    mail = m.chance(0.4)
    owner = brand.replace("&", "&amp;")
    address = f"hello@{slug(brand)}.example"
    contact = '<a href="mailto:$address">$address</a>' if mail else ""
    view = m.view(
        (f"<footer .root><hr /><p>© {{year}} $owner</p>{contact}</footer>",
         f"<footer .root><p>$owner<br />© {{year}}</p>{contact}</footer>",
         f'<footer .root><img src="/logo.svg" alt="$brand" /><small>© {{year}}</small>{contact}</footer>'),
        (f"<footer .root><p>© {{year}} $owner</p>{contact}</footer>",
         f"<footer .root><small>$owner, {{year}}</small>{contact}</footer>",
         f"<footer .root><strong>$owner</strong><span>since {{year}}</span>{contact}</footer>"),
    )  # fmt: skip
    code = m.write(
        m.pick(("Footer", "SiteFooter", "PageFooter", pascal(brand, "footer"))),
        view,
        f"year: number = {year}",
        brand=brand,
        owner=owner,
        address=address,
    )
    noun = m.pick(("footer", "page footer", "site footer"))
    end = f" and the address {address}" if mail else ""
    return m.pair(noun, f"for {brand} with the year {year}{end}", code, str(year), *([address] if mail else []))


@family("divider", short=True)
def divider(m: Maker) -> Pair:
    one, two = m.some(words.TOPICS, 2)
    colour = m.pick(words.COLOURS)
    coloured = m.chance(0.5)
    paint = f' style={{{{ borderColor: "{colour}" }}}}' if coloured else ""
    view = m.view(
        (f"<section .root><h2>$one</h2><hr{paint} /><h2>$two</h2></section>",
         f'<div .root><span>$one</span><div .line! role="separator"{paint} /><span>$two</span></div>',
         f"<><p>$one</p><hr .root{paint} /><p>$two</p></>"),
        (f'<div .root><h2>$one</h2><div role="separator"{paint}>•••</div><h2>$two</h2></div>',
         f"<section .root><p>$one</p><p .rule!{paint}>* * *</p><p>$two</p></section>",
         f'<div .root><div>$one</div><div role="separator"{paint}></div><div>$two</div></div>'),
    )  # fmt: skip
    code = m.write(
        pascal(m.pick((one, "section", "")), m.pick(("divider", "break", "separator"))), view, one=one, two=two
    )
    noun = f"{colour} divider" if coloured else "divider"
    return m.pair(noun, f'between "{one}" and "{two}"', code, *([colour] if coloured else []))


@family("breadcrumb", short=True)
def breadcrumb(m: Maker) -> Pair:
    path = ["Home", *m.some(words.TOPICS, m.pick((1, 2)))]
    mapped = m.chance(0.5)
    if mapped:
        view = m.view(
            (
                "<nav .root>{path.map((step) => <span key={step}>{step}<i .slash! /></span>)}</nav>",
                '<nav .root aria-label="Breadcrumb"><img src="/home.svg" alt="" />{path.join(" / ")}</nav>',
            ),
            (
                '<nav .root aria-label="Breadcrumb"><ol>{path.map((step) => <li key={step}>{step}</li>)}</ol></nav>',
                '<nav .root>{path.map((step) => <a key={step} href={"/" + step}>{step}</a>)}</nav>',
            ),
        )
        code = m.write(pascal(path[-1], "path"), view, "path: string[] = $path", path=array(path))
    else:
        steps = "".join(f'<a href="/{slug(step)}">{step}</a>@' for step in path[:-1]) + f"<b>{path[-1]}</b>"
        closed, plain = steps.replace("@", "<span .slash! />"), steps.replace("@", m.pick(("<i>/</i>", "<i>›</i>", "")))
        view = m.view((f"<nav .root>{closed}</nav>",), (f'<nav .root aria-label="Breadcrumb">{plain}</nav>',))
        code = m.write(pascal(path[-1], "breadcrumb"), view)
    noun = m.pick(("breadcrumb", "breadcrumb trail")) + (" from a path prop" if mapped else "")
    return m.pair(noun, "for " + " / ".join(path), code, *path)
