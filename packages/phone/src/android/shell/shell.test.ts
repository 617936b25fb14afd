// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders are the shell's
import { PassThrough, Readable } from 'node:stream'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openPhone, pipes, type TestPhone } from '../testing/open-phone.ts'

let phone: TestPhone
beforeAll(async () => {
  phone = await openPhone()
})
afterAll(() => phone.close())

describe('the shell', () => {
  it.each([
    [`echo 'a  b' "c  d" e\\ f`, 'a  b c  d e f\n'],
    ['X=1; echo $X "${X}2" \'$X\' ${Y:-none}', '1 12 $X none\n'],
    ['false; echo $?; true; echo $?', '1\n0\n'],
    ['true && echo yes || echo no; false && echo yes || echo no', 'yes\nno\n'],
    ['echo "one\ntwo\nthree" | grep t | wc -l', '2\n'],
    ['echo $(echo a; echo b) `echo c`', 'a b c\n'],
    ['(cd /system; pwd); pwd', '/system\n/\n'],
    ['echo hi # not this', 'hi\n'],
    ['for i in 1 2 3; do if [ $i -eq 2 ]; then continue; fi; echo $i; done', '1\n3\n'],
    ['i=0; while [ $i -lt 3 ]; do i=$((i+1)); done; echo $i', '3\n'],
    ['case abc in a*) echo A;; *) echo B;; esac', 'A\n'],
    ['f() { echo "<$1>"; return 3; }; f x; echo $?', '<x>\n3\n'],
    ['echo no >/dev/null; nope 2>/dev/null; echo $?', '127\n'],
    ['F=/sdcard/Download/x.tar.gz; echo ${F##*/} ${F%.gz}', 'x.tar.gz /sdcard/Download/x.tar\n'],
    ['export A=1; env | grep ^A=', 'A=1\n'],
    ['printf "%s-%03d\\n" a 7 b 8', 'a-007\nb-008\n'],
    ["sh -c 'echo $0 $1' zero one", 'zero one\n'],
    ['! false && echo ok', 'ok\n'],
    ['seq 100000000 | head -n 2', '1\n2\n'],
    ['cat /dev/zero | head -c 3 | wc -c', '3\n'],
    ['echo a*b "/system/b*"', 'a*b /system/b*\n'],
    ['echo /system/bin/getp*', '/system/bin/getprop\n'],
    ['X="a b"; for w in $X; do echo "<$w>"; done; echo "<$X>"', '<a>\n<b>\n<a b>\n'],
    ['toybox echo via', 'via\n'],
    ['/system/bin/echo by path', 'by path\n'],
  ])('%s', async (line, expected) => {
    expect((await phone.run(line)).out).toBe(expected)
  })

  it("says in mksh's words what it cannot find", async () => {
    expect(await phone.run('foo')).toMatchObject({
      code: 127,
      err: '/system/bin/sh: foo: inaccessible or not found\n',
    })
  })

  it('exits with the code of exit, from within a group too', async () => {
    expect((await phone.run('exit 7; echo no')).code).toBe(7)
    expect(await phone.run('{ exit 3; }; echo no')).toMatchObject({ code: 3, out: '' })
    expect(await phone.run('(exit 3); echo $?')).toMatchObject({ code: 0, out: '3\n' })
  })

  it('refuses broken syntax without carrying out any of it', async () => {
    const ran = await phone.run("echo before; echo 'unterminated")
    expect(ran).toMatchObject({ code: 1, out: '' })
    expect(ran.err).toContain('syntax error')
  })

  it('redirects to files and back', async () => {
    const file = '/data/local/tmp/r.txt'
    expect(
      await phone.out(`echo one > ${file}; echo two >> ${file}; cat < ${file}; cat ${file} | wc -l`),
    ).toBe('one\ntwo\n2')
    expect(await phone.out(`ls /nope > ${file} 2>&1; cat ${file}`)).toBe(
      'ls: /nope: No such file or directory',
    )
    expect(await phone.run('echo x > /system/x')).toMatchObject({
      code: 1,
      err: "/system/bin/sh: can't create /system/x: Read-only file system\n",
    })
  })

  it('ends an endless loop when its client has gone', async () => {
    const gone = new AbortController()
    const running = phone.run('while true; do :; done', Readable.from([]), gone.signal)
    setImmediate(() => gone.abort())
    expect((await running).code).toBe(130)
  })

  it('bounds recursion and growth', async () => {
    expect((await phone.run('f() { f; }; f')).err).toContain('nested too deeply')
    expect((await phone.run('x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done')).code).toBe(1)
    expect((await phone.run(`${'('.repeat(2000)}echo${')'.repeat(2000)}`)).code).not.toBe(0)
  })

  it('never rejects, whatever is typed', async () => {
    const token = fc.constantFrom(
      ...[
        'echo',
        'cat',
        ';',
        '&&',
        '||',
        '|',
        '(',
        ')',
        '{',
        '}',
        '"',
        "'",
        '$',
        '$(',
        '`',
        '\\',
        '>',
        '<',
        '2>&1',
      ],
      ...[
        'a',
        '*',
        '[',
        '${',
        '}',
        '$((',
        '))',
        'if',
        'then',
        'fi',
        'for',
        'do',
        'done',
        '\n',
        '&',
        '#',
        '=',
        'X=1',
        '/nope',
      ],
    )
    const line = fc.oneof(
      fc.array(token, { maxLength: 14 }).map((each) => each.join(' ')),
      fc.string({ maxLength: 60 }),
    )
    await fc.assert(
      fc.asyncProperty(
        line.filter((each) => each.trim() !== ''),
        async (source) => {
          const stop = new AbortController()
          const ran = phone.run(source, Readable.from([]), stop.signal)
          expect(Number.isInteger((await ran).code)).toBe(true)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('hands any text through quotes unchanged', async () => {
    const text = fc
      .string({ unit: 'binary', maxLength: 80 })
      .filter((each) => !each.includes('\0') && !each.includes('\r'))
    await fc.assert(
      fc.asyncProperty(text, async (each) => {
        const quoted = `'${each.replaceAll("'", "'\\''")}'`
        const { out } = await phone.run(`printf %s ${quoted}`)
        expect(out).toBe(Buffer.from(each).toString())
      }),
      { numRuns: 300 },
    )
  })
})

describe('an interactive shell', () => {
  it('prompts, echoes, edits, interrupts and ends', async () => {
    const stdin = new PassThrough()
    const { io, out } = pipes({ stdin, signal: new AbortController().signal, pty: true })
    let seen = ''
    const waiters: (() => void)[] = []
    out.on('data', (chunk: Buffer) => {
      seen += chunk.toString()
      for (const wake of waiters.splice(0)) wake()
    })
    const until = async (text: string) => {
      while (!seen.includes(text)) await new Promise<void>((resolve) => waiters.push(resolve))
      seen = seen.slice(seen.indexOf(text) + text.length)
    }
    const code = phone.android.run('', io)
    await until('generic_x86:/ $ ')
    stdin.write('echo hix\x7f\r')
    await until('\r\nhi\r\ngeneric_x86:/ $ ')
    stdin.write('cd /sdcard\r')
    await until('generic_x86:/sdcard $ ')
    stdin.write('cat\r')
    await until('cat\r\n')
    stdin.write('to cat\r')
    await until('to cat\r\nto cat\r\n')
    stdin.write('\x03')
    await until('^C\r\n')
    await until('generic_x86:/sdcard $ ')
    stdin.write('for i in 1 2; do\r')
    await until('> ')
    stdin.write('echo n$i; done\r')
    await until('n1\r\nn2\r\n')
    // Typed all at once, as `printf ... | adb shell -tt` does: what no command reads is for the shell.
    stdin.write('seq 2000 | wc -l\rhead -n 1\rfor head\recho $((6*7))\rexit 4\r')
    await until('for head\r\n')
    await until('42\r\n')
    expect(await code).toBe(4)
  })

  it('runs a script from stdin without a prompt', async () => {
    const stdin = Readable.from([Buffer.from('X=5\nif true\nthen echo $X\nfi\nexit 2\necho no\n')])
    expect(await phone.run('', stdin)).toMatchObject({ code: 2, out: '5\n', err: '' })
  })
})
