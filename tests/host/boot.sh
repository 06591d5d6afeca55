# Boots systemd as process 1 of namespaces of its own: with the programs and files of this machine, of which it
# may change all, because what it writes stays in memory and goes with it.
# Run as root by machine.py: boot.sh CGROUP CHECKOUT PACKAGES PYTHON
set -eu
cgroup=$1
export CHECKOUT="$2" PACKAGES="$3" PYTHON="$4"
mkdir "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --propagation private --uts --ipc --net --cgroup sh -euc '
  mount -t tmpfs -o mode=755 tmpfs /mnt
  root=/mnt/root
  mkdir $root

  layers=0
  over() { # the folder below, and where both are seen
    layers=$((layers + 1))
    mkdir -p "/mnt/$layers/upper" "/mnt/$layers/work" "$2"
    mount -t overlay -o "lowerdir=$1,upperdir=/mnt/$layers/upper,workdir=/mnt/$layers/work" overlay "$2"
  }
  over / $root
  # Those that are file systems of their own.
  for folder in /etc /opt /usr /var; do
    ! mountpoint -q $folder || over $folder $root$folder
  done

  mount -t proc proc $root/proc
  mount --bind $root/proc/sys $root/proc/sys
  mount -o remount,bind,ro $root/proc/sys
  mount -t sysfs -o ro sysfs $root/sys
  mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs $root/run
  mount -t tmpfs -o mode=1777 tmpfs $root/tmp
  mount -t tmpfs -o mode=755 tmpfs $root/dev
  mkdir $root/dev/shm $root/dev/pts
  mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts
  ln -s pts/ptmx $root/dev/ptmx
  for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set -- $device
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
  done

  # Nothing of this machine is to be started, mounted or known: only what the tests ask for.
  rm -rf $root/etc/systemd/system/*.wants $root/lib/systemd/system/*.wants $root/lib/systemd/system-generators
  rm -rf $root/var/lib/kat $root/etc/kat $root/var/log/journal
  : >$root/etc/fstab
  printf "[Unit]\nWants=systemd-journald.service systemd-journald-dev-log.socket\n" \
    >$root/etc/systemd/system/machine.target

  mkdir $root/run/checkout
  mount --bind "$CHECKOUT" $root/run/checkout

  # As `python3 -m venv /opt/kat` and pip make it, from what the tests run on. Units see no home.
  rm -rf $root/opt/kat
  site=$("$PYTHON" -c "import sysconfig; print(sysconfig.get_path(\"purelib\"))")
  base=$("$PYTHON" -c "import sys; print(sys.base_prefix)")
  version=$("$PYTHON" -c "import sys; print(\"python%d.%d\" % sys.version_info[:2])")
  mkdir -p $root/opt/kat/bin "$root/opt/kat/lib/$version"
  # Not in /opt/kat itself: a mount could not be removed.
  over "$site" $root/opt/packages
  ln -s /opt/packages "$root/opt/kat/lib/$version/site-packages"
  for package in spoa tokens haproxy; do
    rm -rf "$root/opt/packages/$package"
    cp -r "$PACKAGES/$package" $root/opt/packages/
  done
  find "$PACKAGES" -maxdepth 1 -name "*.so" -exec cp {} $root/opt/packages/ ";"
  if [ "$base" != /usr ]; then
    mkdir $root/opt/python
    mount --bind "$base" $root/opt/python
    base=/opt/python
    echo "$base/lib" >$root/etc/ld.so.conf.d/00-tests.conf
    ldconfig -X -r $root
  fi
  ln -s "$base/bin/$version" $root/opt/kat/bin/python
  echo "home = $base/bin" >$root/opt/kat/pyvenv.cfg
  printf "%s\n" "#!/opt/kat/bin/python" "from spoa.cli import main" "if __name__ == \"__main__\":" "    main()" \
    >$root/opt/kat/bin/kat
  chmod 755 $root/opt/kat/bin/kat

  ip link set lo up
  cd $root
  mkdir run/old
  pivot_root . run/old
  umount -l /run/old
  rmdir /run/old
  # As systemd does where it believes to be no container. Credentials reach a unit through it.
  mount --make-rshared /
  exec env -i container=kat-tests PATH="$PATH" /lib/systemd/systemd --system --unit=machine.target
'
