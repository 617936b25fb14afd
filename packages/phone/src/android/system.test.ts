import { createReadStream } from 'node:fs'
import { readdir, rm, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { buildApk } from '@cloudphone/apk/testing/build-apk'
import { createCanvas, loadImage } from '@napi-rs/canvas'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openAndroid } from './system.ts'
import { openPhone, PROFILE, pipes, type TestPhone } from './testing/open-phone.ts'

const appium = join(
  dirname(createRequire(import.meta.url).resolve('io.appium.settings/package.json')),
  'apks/settings_apk-debug.apk',
)

let phone: TestPhone
beforeEach(async () => {
  phone = await openPhone()
})
afterEach(() => phone.close())

/** Sends bytes as adb does: on a connection that stays open for the answer, with more to come behind. */
function keptOpen(bytes: Buffer, more = ''): PassThrough {
  const stream = new PassThrough()
  stream.write(bytes)
  if (more !== '') stream.write(more)
  return stream
}

async function install(bytes: Buffer, flags = ''): Promise<string> {
  return (await phone.run(`cmd package 'install' ${flags} -S ${bytes.length}`, keptOpen(bytes))).out.trim()
}

async function pixels(of: TestPhone = phone): Promise<Buffer> {
  const image = await loadImage(await of.android.screencap())
  const canvas = createCanvas(image.width, image.height)
  canvas.getContext('2d').drawImage(image, 0, 0)
  return Buffer.from(canvas.data())
}

function difference(a: Buffer, b: Buffer): number {
  let count = 0
  for (let i = 0; i < a.length; i += 4)
    if (a[i] !== b[i] || a[i + 1] !== b[i + 1] || a[i + 2] !== b[i + 2]) count += 1
  return count
}

describe('booting', () => {
  it('sets the properties that tools wait for, and not before', async () => {
    const fresh = await openAndroid({
      profile: PROFILE,
      dir: join(phone.dir, 'other'),
      power: () => undefined,
      now: () => new Date(0),
    })
    expect(fresh.getProp('sys.boot_completed')).toBe('')
    expect(fresh.getProp('init.svc.bootanim')).toBe('running')
    await fresh.boot(new AbortController().signal)
    expect(fresh.getProp('sys.boot_completed')).toBe('1')
    expect(fresh.getProp('init.svc.bootanim')).toBe('stopped')
    expect(fresh.getProp('ro.build.version.sdk')).toBe('30')
    await fresh.close()
    await fresh.close()
  })

  it('rejects with the reason when it is aborted', async () => {
    const slow = await openAndroid({
      profile: { ...PROFILE, bootMs: 3_600_000 },
      dir: join(phone.dir, 'slow'),
      power: () => undefined,
      now: () => new Date(0),
    })
    const stop = new AbortController()
    const booting = slow.boot(stop.signal)
    stop.abort(new Error('stopped by its owner'))
    await expect(booting).rejects.toThrow('stopped by its owner')
    expect(slow.getProp('sys.boot_completed')).toBe('')
    await slow.close()
  })

  it('keeps packages, persistent properties, settings and files over a restart', async () => {
    await install(await buildApk({ packageName: 'dev.example.kept', label: 'Kept' }))
    await phone.out(
      'setprop persist.test 1; setprop debug.test 1; settings put system k v; echo x > /sdcard/f',
    )
    await phone.android.close()
    const again = await openPhone({ dir: phone.dir })
    expect(
      await again.out('getprop persist.test; getprop debug.test; settings get system k; cat /sdcard/f'),
    ).toBe('1\n\nv\nx')
    expect(await again.out('pm list packages -3')).toBe('package:dev.example.kept')
    await again.android.close()
  })
})

describe('installing', () => {
  it('takes a real APK from a stream of exact length, and leaves the rest of the stream alone', async () => {
    const { size } = await stat(appium)
    const stdin = new PassThrough()
    const sent = pipeline(createReadStream(appium), stdin, { end: false })
    const ran = await phone.run(`cmd package 'install' -r -t -S ${size}`, stdin)
    await sent
    expect(ran).toMatchObject({ code: 0, out: 'Success\n', err: '' })
    expect(stdin.destroyed).toBe(false)
    expect(await phone.out('pm list packages -3')).toBe('package:io.appium.settings')
    const path = (await phone.out('pm path io.appium.settings')).replace('package:', '')
    expect(path).toMatch(/^\/data\/app\/io\.appium\.settings-.+==\/base\.apk$/)
    expect(await phone.out(`stat -c %s ${path}`)).toBe(String(size))
    expect(await phone.out('dumpsys package io.appium.settings')).toContain('versionName=8.0.10')
    expect(await phone.out('cmd package resolve-activity --brief io.appium.settings')).toContain(
      'io.appium.settings/io.appium.settings.Settings',
    )
    expect((await phone.run('pm uninstall io.appium.settings')).out).toBe('Success\n')
    expect(await phone.out('pm list packages -3')).toBe('')
    expect(await readdir(join(phone.dir, 'data/app'))).toEqual([])
  })

  it('takes exactly the bytes announced', async () => {
    const apk = await buildApk({ packageName: 'dev.example.exact' })
    const stdin = keptOpen(apk, 'the next command')
    expect((await phone.run(`pm install -S ${apk.length} && head -c 16`, stdin)).out).toBe(
      'Success\nthe next command',
    )
  })

  it('takes a pushed file, and a session', async () => {
    const apk = await buildApk({ packageName: 'dev.example.pushed', versionCode: 3 })
    await pipeline(
      Readable.from([apk]),
      await phone.android.fs.write('/data/local/tmp/x.apk', { mode: 0o644 }),
    )
    expect(
      (await phone.run('pm install -r /data/local/tmp/x.apk; pm install /data/local/tmp/none.apk')).out,
    ).toBe('Success\nFailure [failed to open /data/local/tmp/none.apk]\n')
    const created = await phone.out(`pm install-create -r -S ${apk.length}`)
    const session = /\[(\d+)\]/.exec(created)?.[1]
    const written = await phone.run(`pm install-write -S ${apk.length} ${session} base.apk -`, keptOpen(apk))
    expect(written.out).toBe(`Success: streamed ${apk.length} bytes\n`)
    expect(await phone.out(`pm install-commit ${session}`)).toBe('Success')
    expect((await phone.run(`pm install-commit ${session}`)).out).toContain('INSTALL_FAILED_INVALID_ID')
  })

  it("refuses in PackageManager's words", async () => {
    const versioned = (versionCode: number) => buildApk({ packageName: 'dev.example.v', versionCode })
    expect(await install(await versioned(2))).toBe('Success')
    expect(await install(await versioned(1))).toContain('INSTALL_FAILED_VERSION_DOWNGRADE')
    expect(await install(await versioned(2), '-R')).toContain('INSTALL_FAILED_ALREADY_EXISTS')
    expect(await install(await versioned(2), '-r')).toBe('Success')
    expect(await install(await versioned(1), '-r -d')).toBe('Success')
    expect(await install(Buffer.from('no apk at all, but some bytes of it'))).toContain(
      'INSTALL_PARSE_FAILED_NOT_APK',
    )
    expect(
      await install(await buildApk({ packageName: 'a.b', files: { 'lib/mips/l.so': Buffer.alloc(1) } })),
    ).toContain('NO_MATCHING_ABIS')
    expect(await install(await buildApk({ packageName: 'com.android.settings' }))).toContain(
      'INSTALL_FAILED_UPDATE_INCOMPATIBLE',
    )
    expect((await phone.run('cmd package install -S 0')).out).toContain('INSTALL_PARSE_FAILED_NOT_APK')
    expect(
      (
        await phone.run(
          'cmd package install -S 70000000',
          new PassThrough().end(Buffer.alloc(66 * 1024 * 1024)),
        )
      ).out,
    ).toContain('INSUFFICIENT_STORAGE')
    expect((await phone.run('pm uninstall com.android.settings')).out).toContain('Failure [')
    expect((await phone.run('pm uninstall not.there')).code).toBe(1)
    expect(await readdir(join(phone.dir, 'staging'))).toEqual([])
  })

  it('gives the space of replaced and removed packages back', async () => {
    const used = async () => Number((await phone.out('df')).split('\n').at(-1)?.split(/\s+/)[2])
    const before = await used()
    const apk = await buildApk({
      packageName: 'dev.example.space',
      files: { 'assets/a': Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251)) },
    })
    for (let round = 0; round < 3; round += 1) await install(apk)
    await phone.out('pm uninstall dev.example.space')
    expect(Math.abs((await used()) - before)).toBeLessThan(4)
  })

  it('grants what Android grants', async () => {
    const permissions = ['android.permission.INTERNET', 'android.permission.CAMERA']
    await install(await buildApk({ packageName: 'dev.example.perm', permissions }))
    const granted = async () => (await phone.out('pm dump dev.example.perm')).match(/\w+: granted=\w+/g)
    expect(await granted()).toEqual(['INTERNET: granted=true', 'CAMERA: granted=false'])
    await phone.out('pm grant dev.example.perm android.permission.CAMERA')
    expect(await granted()).toEqual(['INTERNET: granted=true', 'CAMERA: granted=true'])
    expect((await phone.run('pm grant dev.example.perm android.permission.READ_SMS')).code).toBe(255)
  })
})

describe('the screen', () => {
  it("is a PNG of the phone's size, and the same twice", async () => {
    const png = (await phone.run('screencap -p')).bytes
    const image = await loadImage(png)
    expect([image.width, image.height]).toEqual([PROFILE.width, PROFILE.height])
    expect(png.equals(await phone.android.screencap())).toBe(true)
    await phone.out('screencap -p /sdcard/s.png')
    expect((await phone.android.fs.stat('/sdcard/s.png'))?.size).toBe(png.length)
  })

  it('shows an installed app, its window, and the launcher again', async () => {
    const launcher = await pixels()
    await install(await buildApk({ packageName: 'dev.example.app', label: { '': '云手机 🙂 app' } }))
    const withIcon = await pixels()
    expect(difference(launcher, withIcon)).toBeGreaterThan(500)
    expect(
      (await phone.run('monkey -p dev.example.app -c android.intent.category.LAUNCHER 1')).out,
    ).toContain('Events injected: 1')
    const opened = await pixels()
    expect(difference(withIcon, opened)).toBeGreaterThan(50_000)
    expect(await phone.out('dumpsys window | grep mCurrentFocus')).toContain(
      'dev.example.app/dev.example.app.Main',
    )
    expect(await phone.out('pidof dev.example.app')).toMatch(/^\d+$/)
    await phone.out('input keyevent KEYCODE_HOME')
    expect(difference(withIcon, await pixels())).toBe(0)
    await phone.out('am force-stop dev.example.app')
    expect((await phone.run('pidof dev.example.app')).code).toBe(1)
  })

  it('takes taps, text, keys and swipes', async () => {
    const before = await pixels()
    await phone.out('input tap 180 223; input text "calc"')
    const typed = await pixels()
    expect(difference(before, typed)).toBeGreaterThan(200)
    await phone.out('input keyevent 67 67 67 67 BACK')
    expect(difference(before, await pixels())).toBe(0)
    // The first icon of the grid is the clock.
    await phone.out('input tap 60 310')
    expect(await phone.out('dumpsys activity | grep mResumedActivity')).toContain('com.android.deskclock')
    await phone.out('input keyevent BACK; input swipe 300 400 20 400 1; input keyevent POWER')
    expect(new Set((await pixels()).subarray(0, 3))).toEqual(new Set([0]))
    await phone.out('input keyevent 224')
    expect(difference(before, await pixels())).toBe(0)
  })

  it('draws every app without failing, in portrait and landscape', async () => {
    await phone.out('mkdir /sdcard/文件夹; echo hello > /sdcard/notes.txt')
    const seen: Buffer[] = []
    for (const size of ['360x640', '640x360']) {
      await phone.out(`wm size ${size}`)
      for (const name of ['settings', 'documentsui', 'calculator2', 'deskclock', 'calendar', 'camera2'])
        seen.push(await opened(`com.android.${name}`))
      seen.push(await opened('org.chromium.webview_shell'))
    }
    expect(new Set(seen.map((each) => each.toString('base64'))).size).toBe(seen.length)
    async function opened(name: string): Promise<Buffer> {
      await phone.out(`monkey -p ${name} -c android.intent.category.LAUNCHER 1`)
      return await phone.android.screencap()
    }
  })

  it('follows wm size and density', async () => {
    expect(await phone.out('wm size; wm density')).toBe('Physical size: 360x640\nPhysical density: 160')
    await phone.out('wm size 400x800; wm density 240')
    expect(await phone.out('wm size')).toContain('Override size: 400x800')
    const image = await loadImage(await phone.android.screencap())
    expect([image.width, image.height]).toEqual([400, 800])
    expect((await phone.run('wm size 1x100000')).code).toBe(255)
  })
})

describe('commands', () => {
  it('getprop and setprop', async () => {
    expect(await phone.out('getprop | grep ro.product.model')).toBe('[ro.product.model]: [Cloudphone One]')
    expect((await phone.run('setprop ro.product.model x')).code).toBe(1)
    expect(await phone.out('setprop a.b "two words"; getprop a.b; getprop none default')).toBe(
      'two words\ndefault',
    )
  })

  it('am says what Android says', async () => {
    expect(await phone.run('am start -n com.android.settings/.Settings')).toMatchObject({
      code: 0,
      out: 'Starting: Intent { cmp=com.android.settings/.Settings }\n',
    })
    expect(await phone.run('am start -n no.such/.Thing')).toMatchObject({
      code: 1,
      err: 'Error type 3\nError: Activity class {no.such/no.such.Thing} does not exist.\n',
    })
    expect(await phone.out('am broadcast -a test.ACTION')).toContain('Broadcast completed: result=0')
    expect(
      await phone.out('am start -W -a android.intent.action.MAIN -c android.intent.category.HOME'),
    ).toContain('Status: ok')
  })

  it('dumpsys battery shows what was set', async () => {
    await phone.out('dumpsys battery set level 42; dumpsys battery set ac 0')
    expect(await phone.out('dumpsys battery')).toMatch(/AC powered: false[\s\S]*level: 42/)
    await phone.out('dumpsys battery reset')
    expect(await phone.out('dumpsys battery | grep level')).toBe('  level: 100')
    expect((await phone.run('dumpsys battery set level 500')).code).toBe(255)
    expect((await phone.run('dumpsys nope')).err).toBe("Can't find service: nope\n")
    expect(await phone.out('dumpsys meminfo')).toContain('Total RAM: 2,097,152K')
  })

  it('logcat filters, formats, clears and follows', async () => {
    await phone.out('log -t MyTag -p w "first line"; log -t Other second')
    expect(await phone.out('logcat -d -v brief -s MyTag:W')).toMatch(/W\/MyTag +\( *\d+\): first line$/)
    expect(await phone.out('logcat -d -t 1')).toMatch(/03-14 10:09:00\.000 .* I Other +: second$/)
    const gone = new AbortController()
    const { io, out } = pipes({ stdin: Readable.from([]), signal: gone.signal, pty: false })
    const following = phone.android.run('logcat -s Fresh', io)
    const line = new Promise<string>((resolve) =>
      out.on('data', (chunk: Buffer) => chunk.includes('Fresh') && resolve(chunk.toString())),
    )
    await phone.out('log -t Fresh now')
    expect(await line).toContain('Fresh   : now')
    gone.abort()
    expect(await following).toBe(130)
    expect(await phone.out('logcat -c; logcat -d')).toBe('--------- beginning of main')
  })

  it('settings', async () => {
    expect(await phone.out('settings get global wifi_on; settings get system nope')).toBe('1\nnull')
    expect(
      await phone.out(
        'settings put secure __proto__ x; settings get secure __proto__; settings delete secure __proto__',
      ),
    ).toBe('x\nDeleted 1 rows')
    expect((await phone.run('settings get nowhere x')).code).toBe(255)
  })

  it('the small ones', async () => {
    expect(await phone.out('id; whoami; uname -a; date +%F; which ls; cmd package path android')).toBe(
      [
        await phone.out('id'),
        'shell',
        'Linux localhost 5.10.0-cloudphone #1 SMP PREEMPT x86_64',
        '2026-03-14',
        '/system/bin/ls',
        'package:/system/framework/framework-res/framework-res.apk',
      ].join('\n'),
    )
    expect(await phone.out('setprop persist.sys.timezone Asia/Shanghai; date +%H:%M')).toBe('18:09')
    expect(await phone.out('ps -A')).toContain('system_server')
    await phone.out('reboot; reboot -p; svc power shutdown')
    expect(phone.power).toEqual(['reboot', 'shutdown', 'shutdown'])
  })
})

it('a closed phone leaves nothing behind but its data', async () => {
  await phone.android.close()
  expect(await readdir(phone.dir)).toEqual(['data'])
  await rm(phone.dir, { recursive: true })
})
